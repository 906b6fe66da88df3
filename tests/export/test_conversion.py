"""What an ONNX file must compute and say.

A new head is tested by being registered; so are backbones and aggregators, converted without weights, in
`tests/features/test_onnx_graphs.py`. `tests/cli/test_families.py` exports some families of published models.
"""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from vpr_dhe.errors import BadInputError, ExportError, MissingExtraError, ModelError
from vpr_dhe.export import exporting
from vpr_dhe.export.exporting import export_model
from vpr_dhe.export.networks import HEADS, head_network
from vpr_dhe.features.exportable import extractor_network
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.exported_model import TensorInfo, load_exported
from vpr_dhe.models.onnx_conversion import (
    MAX_RELATIVE_DIFFERENCE,
    ExportableNetwork,
    relative_difference,
    write_onnx,
)
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.verification.estimators.dhe import DheHead
from vpr_dhe.verification.estimators.dhe_lite import DheLiteHead

_HEAD_MODULES = {"dhe": DheHead, "dhe-lite": DheLiteHead}


def require_parity(network: ExportableNetwork, path) -> None:
    """The file computes what torch does, also in a batch that was not checked at export."""
    inputs = network.example(5)
    with torch.inference_mode():
        expected = network.module(*inputs)
    for found, wanted in zip(OnnxSession(path)(*inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_every_head(tmp_path, name):
    extractor = load_extractor("sift-vlad")
    torch.manual_seed(0)
    model = open_model("sift-vlad").with_head(name, _HEAD_MODULES[name]().state_dict())
    network = head_network(model, extractor.spec)
    part = write_onnx(network, tmp_path / "network.onnx", {})
    assert part.relative_difference < MAX_RELATIVE_DIFFERENCE
    require_parity(network, tmp_path / "network.onnx")


def test_an_exported_extractor_computes_the_same(exported):
    extractor = load_extractor(str(exported.model), runtime="torch")
    network = extractor_network(extractor, extractor.model_file.preprocessing)
    require_parity(network, exported.folder / "extractor.onnx")


def test_files_say_all_about_themselves(exported):
    model, description = load_exported(exported.folder), json.loads((exported.folder / "export.json").read_text())
    original = load_extractor(str(exported.model))
    assert sorted(path.name for path in exported.folder.iterdir()) == ["export.json", "extractor.onnx"]
    assert (model.info.fingerprint, model.info.grid) == (original.spec.fingerprint, original.spec.grid)
    assert model.info.preprocessing == original.model_file.preprocessing
    assert (description["licence"], description["training_data"]) == ("of who trains it", "random weights")
    (part,) = model.parts.values()
    assert part.relative_difference < 1e-5
    assert {fact.name: fact.shape for fact in (*part.inputs, *part.outputs)} == {
        "images": ("images", 3, 64, 64),
        "global_descriptor": ("images", 256),
        "local_map": ("images", 16, 256),
    }
    meanings = " ".join(fact.meaning for fact in (*part.inputs, *part.outputs))
    for said in ("RGB", "64 x 64", "bilinear, with antialiasing", "minus (0.5, 0.5, 0.5)", "L2-normalise it", "4 x 4"):
        assert said in meanings
    file = onnx.load(exported.folder / "extractor.onnx")
    (metadata,) = (json.loads(one.value) for one in file.metadata_props if one.key == "vpr_dhe")
    assert metadata == json.loads(
        json.dumps(asdict(model.info) | {"inputs": part.inputs, "outputs": part.outputs}, default=asdict)
    )
    assert not any(node.metadata_props for node in file.graph.node)
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in (*file.graph.input, *file.graph.output)
    }
    assert shapes == {fact.name: list(fact.shape) for fact in (*part.inputs, *part.outputs)}


class _Noise(nn.Module):
    """Never the same twice."""

    def forward(self, numbers):
        return (numbers + torch.randn_like(numbers),)


class _Same(nn.Module):
    def forward(self, numbers):
        return (numbers,)


class _Choice(nn.Module):
    """What it does depends on what it sees, which no ONNX file of it could."""

    def forward(self, numbers):
        return (numbers if bool(numbers.sum() > 0) else -numbers,)


def numbers_network(module: nn.Module) -> ExportableNetwork:
    facts = (TensorInfo("a", "float32", ("batch", 4), ""),), (TensorInfo("b", "float32", ("batch", 4), ""),)
    return ExportableNetwork(module, *facts, lambda batch: (torch.ones(batch, 4),))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (_Noise(), "differ from the network's by"),
        pytest.param(_Choice(), "cannot convert", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_the_same_leaves_nothing(exported, tmp_path, monkeypatch, module, reason):
    monkeypatch.setattr(exporting, "extractor_network", lambda *_: numbers_network(module))
    with pytest.raises(ExportError, match=reason):
        export_model(str(exported.model), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_difference_is_measured_for_each_image():
    def off_by_an_eighth(numbers):
        # Of four ones in the last row of the batch, one is a quarter more.
        found = numbers.clone()
        found[-1, 0] += 0.25
        return (found,)

    network = numbers_network(_Same())
    assert relative_difference(network, off_by_an_eighth) == pytest.approx(0.125)
    assert relative_difference(network, network.module) == 0
    assert math.isnan(relative_difference(network, lambda numbers: (numbers * torch.nan,)))


def test_refusals(exported, tmp_path, monkeypatch):
    with pytest.raises(
        ModelError, match="has no network that extracts features; --part head exports its head dhe-lite"
    ):
        export_model("sift-vlad", tmp_path / "out")
    with pytest.raises(ModelError, match="holds no head; heads that can be exported: dhe, dhe-lite"):
        export_model(str(exported.model), tmp_path / "out", "head")
    with pytest.raises(ModelError, match="is an export, which can neither be trained nor exported again"):
        export_model(str(exported.folder), tmp_path / "out")
    with pytest.raises(BadInputError, match="is not empty"):
        export_model(str(exported.model), exported.folder)
    with pytest.raises(BadInputError, match="lies in a folder that does not exist"):
        export_model(str(exported.model), tmp_path / "no" / "out")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r'pip install "vpr-dhe\[export\]"'):
        export_model(str(exported.model), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("as_path", [str, Path])
def test_folders_are_given_as_text_or_as_paths(tmp_path, as_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(BadInputError, match="is not empty"):
        export_model("lite-vlad", as_path(tmp_path))
    with pytest.raises(ModelError, match=r"contains no export\.json"):
        load_exported(as_path(tmp_path))
