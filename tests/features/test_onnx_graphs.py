"""Networks of model files in ONNX Runtime: as in torch, converted once, and in torch where that is impossible."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import networks, random_model

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError, ExportError, MissingExtraError, ModelError
from vpr_dhe.features import onnx_graphs
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.features.onnx_extractor import OnnxExtractor
from vpr_dhe.features.onnx_graphs import OnnxGraph, convert, graph_for, graph_key
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.models import onnx_conversion
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.names import BUNDLED, CCT_OFFLINE, LITE_VLAD, SIFT_VLAD

NETWORKS = [name for name in BUNDLED if name != SIFT_VLAD]
CPU = torch.device("cpu")


def pictures(count):
    """Images of large patches and different sizes."""
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (6 + number, 9, 3), np.uint8) for number in range(count)]
    return [np.kron(image, np.ones((30, 30, 1), np.uint8)) for image in coarse]


def require_same(found, expected):
    """Features of two runtimes differ by 1e-4 of their norm at most."""
    for one, other in zip(found, expected, strict=True):
        assert (one.grid, one.frame) == (other.grid, other.frame)
        for name in ("global_descriptor", "local_map"):
            ours, theirs = getattr(one, name), getattr(other, name)
            assert (ours - theirs).norm(dim=-1).max() < 1e-4 * theirs.norm(dim=-1).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_bundled_networks_run_in_onnx_runtime_by_default(name):
    found, expected = load_extractor(name), load_extractor(name, runtime="torch")
    assert (type(found), type(expected)) == (OnnxExtractor, NeuralExtractor)
    assert type(load_extractor(name, runtime="onnx")) is OnnxExtractor
    assert found.spec == expected.spec
    images = pictures(3)
    together = found.extract(images)
    require_same(together, expected.extract(images))
    for features, image in zip(together, images, strict=True):
        require_same([features], found.extract([image]))


def test_models_that_differ_in_weights_alone_share_a_graph(tmp_path):
    model = open_model(CCT_OFFLINE)
    random = {name: torch.randn_like(value.float()).abs() / 10 for name, value in model.tensors.items()}
    trained = replace(model, name="trained", tensors=random)
    assert graph_key(trained) == graph_key(model) == graph_key(trained.without_head())
    trained.save(tmp_path / "trained.safetensors")
    found, expected = (load_extractor(str(tmp_path / "trained.safetensors"), runtime=way) for way in ("auto", "torch"))
    assert (type(found), found.spec) == (OnnxExtractor, expected.spec)
    require_same(found.extract(pictures(2)), expected.extract(pictures(2)))
    smaller = replace(model.preprocessing, width=model.preprocessing.width // 2)
    assert graph_key(replace(model, preprocessing=smaller)) != graph_key(model)


@pytest.mark.slow
def test_an_index_of_either_runtime_answers_alike(photo_folder, tmp_path):
    answers = []
    for runtime in ("auto", "torch"):
        extractor = load_extractor(LITE_VLAD, runtime=runtime)
        index = PlaceIndex.create(tmp_path / runtime, extractor.spec, photo_folder, codec="float16")
        index.add(read_split(photo_folder).records, extractor)
        for asked_by in ("auto", "torch"):
            localizer = Localizer.open(index.folder, runtime=asked_by)
            matches = localizer.localize(photo_folder / "03.png", top_k=12).matches
            answers.append([(match.image, match.verification.inliers) for match in matches])
    assert answers[0][0][0] == "03.png"
    assert answers == answers[:1] * 4


def test_an_extractor_is_shared_by_threads_and_travels_to_processes():
    extractor, images = load_extractor(LITE_VLAD), pictures(2)
    expected = extractor.extract(images)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: extractor.extract(images), range(8)):
            require_same(found, expected)
    require_same(pickle.loads(pickle.dumps(extractor)).extract(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("aggregator", "backbone"), networks(), ids=lambda part: part if isinstance(part, str) else part[0]
)
def test_every_backbone_and_aggregator(aggregator, backbone):
    """The graph of one model computes with the weights of another."""
    name, blocks, side = backbone
    made, other = (random_model(name, aggregator, blocks, side, seed=seed) for seed in (0, 1))
    found = OnnxExtractor.of_model(other, "other", OnnxGraph.from_bytes(convert(made).to_bytes()))
    expected = NeuralExtractor(other, "other", CPU)
    assert found.spec == expected.spec
    require_same(found.extract(pictures(3)), expected.extract(pictures(3)))


@pytest.fixture(scope="module")
def tiny():
    """A small model that no graph in the package serves, and its graph."""
    model = random_model("cct_7_7x2_224", "mean", 1, 32)
    return model, convert(model)


@pytest.fixture
def conversions(tiny, tmp_path, monkeypatch):
    """List of the models that were converted, with an empty cache; the conversion itself is that of `tiny`."""
    converted = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(onnx_graphs, "convert", lambda model: converted.append(model) or tiny[1])
    return converted


def cached(tmp_path, ending):
    return list((tmp_path / "cache" / "vpr-dhe" / "onnx").glob(f"*/*{ending}"))


@pytest.mark.slow
def test_other_networks_are_converted_once(tiny, conversions, tmp_path):
    model, graph = tiny
    model.save(tmp_path / "tiny.safetensors")
    first = load_extractor(str(tmp_path / "tiny.safetensors"))
    again = load_extractor(str(tmp_path / "tiny.safetensors"))
    assert (len(conversions), type(first), type(again)) == (1, OnnxExtractor, OnnxExtractor)
    expected = load_extractor(str(tmp_path / "tiny.safetensors"), runtime="torch")
    assert first.spec == again.spec == expected.spec
    require_same(again.extract(pictures(2)), expected.extract(pictures(2)))
    (file,) = cached(tmp_path, ".zip")
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.stat().st_size < 50_000
    file.write_bytes(file.read_bytes()[:-100])
    assert (graph_for(model, required=False), len(conversions)) == (graph, 2)
    assert (graph_for(model, required=False), len(conversions)) == (graph, 2)


@pytest.mark.parametrize("packages", ["installed", "missing"])
def test_without_a_place_or_packages_torch_runs_the_network(tiny, conversions, tmp_path, monkeypatch, packages):
    if packages == "missing":
        monkeypatch.setitem(sys.modules, "onnxscript", None)
    else:
        (tmp_path / "cache").touch()
    assert graph_for(tiny[0], required=False) is None
    assert graph_for(open_model(LITE_VLAD), required=False) is not None
    assert conversions == []
    if packages == "missing":
        with pytest.raises(MissingExtraError, match=r'pip install "vpr-dhe\[export\]"'):
            graph_for(tiny[0], required=True)
    else:
        assert graph_for(tiny[0], required=True) == tiny[1]


def test_a_network_that_cannot_be_converted_is_tried_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    attempts = []

    def fail(network):
        attempts.append(network)
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnx_conversion, "convert_without_weights", fail)
    for _ in range(2):
        assert graph_for(tiny[0], required=False) is None
    assert (len(attempts), len(cached(tmp_path, ".refused"))) == (1, 1)
    with pytest.raises(ExportError, match="no such operator"):
        graph_for(tiny[0], required=True)


def test_any_error_of_a_conversion_is_explained(tiny, monkeypatch):
    def fail(network):
        raise RuntimeError("odd")

    monkeypatch.setattr(onnx_conversion, "convert_without_weights", fail)
    with pytest.raises(ExportError, match=r"random cannot be converted to ONNX \(RuntimeError: odd\); use --runtime"):
        convert(tiny[0])


def test_damaged_graphs_and_wrong_weights_are_found(tiny):
    model, graph = tiny
    assert OnnxGraph.from_bytes(graph.to_bytes()) == graph
    for damaged in (b"", graph.to_bytes()[:-20], graph.to_bytes().replace(b"graph.onnx", b"graph.txt_")):
        with pytest.raises(ValueError, match="damaged graph"):
            OnnxGraph.from_bytes(damaged)
    name = graph.weights[0]
    with pytest.raises(ModelError, match="ONNX Runtime cannot run a converted network"):
        graph.session(replace(model, tensors={**model.tensors, name: torch.zeros(3)}))


def test_what_onnx_runtime_does_not_run_is_explained():
    with pytest.raises(BadInputError, match=r"not sift-vlad: it has no network; leave out --runtime"):
        load_extractor(SIFT_VLAD, runtime="onnx")
    with pytest.raises(BadInputError, match=r"not lite-vlad: another device, --precision .*give --model FOLDER"):
        load_extractor(LITE_VLAD, runtime="onnx", precision="bf16")
    assert type(load_extractor(LITE_VLAD, precision="bf16")) is NeuralExtractor


@pytest.mark.slow
def test_a_bundled_network_starts_without_packages_that_only_torch_needs():
    asked = (
        "import sys; from vpr_dhe import load_extractor; load_extractor('lite-vlad');"
        "print(sorted({'timm', 'torchvision', 'kornia', 'onnx', 'onnxscript'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("fault", [ExportError("outputs differ by nan"), OSError(28, "No space left on device")])
def test_a_passing_fault_does_not_keep_others_from_being_converted(tiny, tmp_path, monkeypatch, fault):
    """The key of a graph has no weights, which may be at fault."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def fail(network):
        raise fault

    monkeypatch.setattr(onnx_conversion, "convert_without_weights", fail)
    assert graph_for(tiny[0], required=False) is None
    assert not cached(tmp_path, ".refused")
