"""Model files: what is saved is loaded, and nothing else is."""

import json
import zlib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vpr_dhe.errors import ModelError
from vpr_dhe.models import weights_file
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.model_file import Architecture, ModelFile, load_model
from vpr_dhe.models.names import BUNDLED
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import Preprocessing
from vpr_dhe.verification.estimators.dhe_lite import DheLiteEstimator


@pytest.fixture
def model() -> ModelFile:
    preprocessing = Preprocessing(32, 48, "bilinear", False, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    tensors = {"backbone.a": torch.arange(6.0).view(2, 3), "head.b": torch.ones(2, dtype=torch.float16)}
    return ModelFile("m", Architecture("x", "gem", 3, "dhe", False, 2.5), preprocessing, "MIT", "photos", tensors)


@pytest.mark.parametrize("as_path", [str, Path])
def test_round_trip(model, tmp_path, as_path):
    model.save(as_path(tmp_path / "m.safetensors"))
    loaded = load_model(as_path(tmp_path / "m.safetensors"))
    assert replace(loaded, tensors={}) == replace(model, tensors={})
    assert loaded.tensors.keys() == model.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], model.tensors[name]) for name in model.tensors)
    assert loaded.tensors["head.b"].dtype == torch.float16
    assert list(loaded.part("backbone")) == ["a"]


def rewritten(model: ModelFile, path, change) -> None:
    model.save(path)
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["vpr_dhe"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata)
    if "sha256" in metadata and metadata["sha256"] != "0" * 64:
        metadata["sha256"] = weights_file._digest(metadata, tensors)
    save_file(tensors, path, {"vpr_dhe": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda metadata: metadata.update(format="vpr-dhe model 99"), "metadata"),
        (lambda metadata: metadata.pop("licence"), "incomplete metadata"),
        (lambda metadata: metadata.update(sha256="0" * 64), "checksum"),
        (lambda metadata: metadata["preprocessing"].update(order=["resize", "to_unit_range"]), "does not support"),
        (lambda metadata: metadata["preprocessing"].update(resize_mode="crop"), "does not support"),
        (lambda metadata: metadata["architecture"].update(neck="long"), "incomplete metadata"),
    ],
)
def test_what_is_not_understood_is_refused(model, tmp_path, change, complaint):
    rewritten(model, tmp_path / "m.safetensors", change)
    with pytest.raises(ModelError, match=complaint):
        load_model(tmp_path / "m.safetensors")


def test_changed_facts_are_found(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    path.write_bytes(path.read_bytes().replace(b"bilinear", b"bicubic "))
    with pytest.raises(ModelError, match="checksum"):
        load_model(path)


@pytest.mark.parametrize("name", ["m.bin", "none/m.safetensors"])
def test_model_files_are_written_only_where_they_can_be_found(model, tmp_path, name):
    with pytest.raises(ModelError):
        model.save(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ModelError, match="import-weights"):
        load_model(tmp_path / "plain.safetensors")
    (tmp_path / "words.safetensors").write_text("words")
    with pytest.raises(ModelError, match="not a readable"):
        load_model(tmp_path / "words.safetensors")
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_state_where_they_come_from(name):
    model = open_model(name)
    assert (model.name, model.licence) == (name, "Apache-2.0")
    assert "CC0" in model.training_data
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in model.tensors.values())


@pytest.mark.parametrize("name", ["lite-vlad", "sift-vlad", "cct-offline"])
def test_bundled_models_hold_a_verifier(name):
    model = open_model(name)
    assert "generated towns" in model.training_data
    head = DheLiteEstimator.from_model(model).head
    assert sum(parameter.numel() for parameter in head.parameters()) < 3_000_000


def test_bundled_models_are_those_that_stored_features_came_from():
    assert {name: open_model(name).extractor_fingerprint for name in BUNDLED} == {
        "sift-vlad": "c1cc8616113df5bede15c6d86e43b828d8d36d910c1fae51ffdd8d01afa135a3",
        "cct-offline": "71fe62fd35c90dba938942ce61006edcdb24cd9833373308ed26ca2423e5cb0b",
        "lite-vlad": "ecd02cdc399b5f11e2625730816504cf23c9a01ee142de54f08674c5afb19c27",
        "cct-lite": "a8b01d8fb45fef28854f924d97d7b7260a4e2cf41308168bb9ce1494d1b8f414",
    }


def test_a_bundled_student_ends_in_the_parts_of_its_teacher():
    student, teacher = open_model("cct-lite"), open_model("lite-vlad")
    assert {name.partition(".")[0] for name in student.tensors} == {"backbone", "aggregator", "local_head"}
    for part in ("aggregator", "local_head"):
        assert all(torch.equal(value, teacher.part(part)[name]) for name, value in student.part(part).items())


def test_bundled_weights_are_small_enough_for_a_wheel():
    folder = resources.files("vpr_dhe.models") / "weights"
    names = sorted(f"{name}.safetensors" for name in (*BUNDLED, "cross-modal"))
    assert sorted(file.name for file in folder.iterdir()) == names
    assert sum(len(zlib.compress(file.read_bytes())) for file in folder.iterdir()) < 30_000_000
    assert all(len(file.read_bytes()) <= 10_000_000 for file in folder.iterdir())
    assert len((folder / "lite-vlad.safetensors").read_bytes()) <= 8_000_000
    assert len((folder / "cross-modal.safetensors").read_bytes()) <= 4_000_000


def test_an_unknown_model():
    with pytest.raises(ModelError, match="unknown model"):
        open_model("sift-flad")


def test_a_failed_write_leaves_the_file_of_before(model, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model.save(path)

    def full(_tensors, path, **_):
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(weights_file, "save_file", full)
    with pytest.raises(OSError, match="cannot be written"):
        model.save(path)
    assert load_model(path).name == model.name
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_network_is_no_model(tmp_path):
    path = tmp_path / "network.safetensors"
    NetworkFile("iterative", {}, "CC0", "nothing", {"a": torch.zeros(1)}).save(path)
    with pytest.raises(ModelError, match="it is 'vpr-dhe network 1': give models by --model, networks by --weights"):
        load_model(path)
