"""Fits of a VLAD: what they learn, and that an interrupted one gives the same file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.features.aggregators.joint_vlad import JointVladSizes
from vpr_dhe.features.aggregators.vlad import VladSizes
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.local_head import CONTEXT, LocalHead, LocalHeadSizes
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.model_file import ModelFile, load_model
from vpr_dhe.records import Size
from vpr_dhe.training.trainable_extractor import new_model
from vpr_dhe.training.vlad import fit as fit_module
from vpr_dhe.training.vlad import network, partial_results
from vpr_dhe.training.vlad.fit import VladInfo, fit_vlad
from vpr_dhe.training.vlad.settings import VladSettings, fit_vocabulary
from vpr_dhe.training.whitening import projection_of

CPU = torch.device("cpu")
# As fitted to the images below by the function that made the model in the package.
MEAN = [0.0401, 0.0447, 0.0575, 0.0444]
LOCAL_SHARES = [0.4849, 0.5939, 0.5147, 0.5124]
CENTRE_NORMS = [1.2886, 1.4651, 1.658, 1.669]
SMALL = VladSettings(aggregator="vlad", words=4, dimension=6, reduced_dimension=8, views_per_image=2)
INFO = VladInfo("textures, CC0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for number in range(20):
        coarse = PIL.Image.fromarray(random.integers(0, 256, (10, 10, 3), np.uint8))
        coarse.resize((90, 70), PIL.Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def tiny() -> ModelFile:
    model = new_model("cct_7_7x2_224", "gem", Size(64, 64), seed=0)
    kept = {name: value for name, value in model.tensors.items() if ".blocks." not in name or ".blocks.0." in name}
    return replace(model, name="tiny", architecture=replace(model.architecture, blocks=1), tensors=kept)


@pytest.fixture
def small_parts(monkeypatch):
    """Results are stored every eight images, in place of 64."""
    monkeypatch.setattr(partial_results, "PART_SIZE", 8)


@pytest.mark.parametrize("aggregator", ["vlad", "netvlad"])
def test_a_fitted_network_loads_and_tells_images_apart(photos, tiny, tmp_path, aggregator):
    out, settings = tmp_path / "fitted.safetensors", replace(SMALL, aggregator=aggregator, bands=3)
    assert fit_vlad(tiny, photos, out, settings, INFO, CPU).images == 20
    assert list(tmp_path.iterdir()) == [out]
    model = load_model(out)
    assert (model.name, model.architecture.aggregator) == (f"tiny-{aggregator}", aggregator)
    assert model.licence == tiny.licence
    assert model.training_data == "random weights; vocabulary and projection: textures, CC0"
    assert VladSizes.of(model.part("aggregator")) == VladSizes(words=4, bands=3, reduced=8, dimension=6)
    assert all(torch.equal(model.tensors[name], tiny.tensors[name]) for name in tiny.tensors if "backbone" in name)
    extractor = load_extractor(str(out))
    images = [decode_image(path) for path in sorted(photos.iterdir())]
    vectors = torch.stack([found.global_descriptor for found in extractor.extract(images)])
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    cosines = (vectors @ vectors.mT)[~torch.eye(20, dtype=torch.bool)]
    assert float(cosines.mean()) < 0.3
    darker = extractor.extract([(images[3] * 0.9).astype(np.uint8)])[0].global_descriptor
    assert float(torch.nn.functional.cosine_similarity(darker, vectors[3], dim=0)) > 0.8


@pytest.fixture(scope="module")
def with_local_head(tiny) -> ModelFile:
    torch.manual_seed(0)
    return tiny.with_local_head(CONTEXT, LocalHead(256, LocalHeadSizes(hidden=8, dimension=4)).state_dict())


def test_a_joint_vlad_pools_the_descriptors_of_the_local_head_besides(photos, with_local_head, tmp_path):
    out, settings = tmp_path / "joint.safetensors", replace(SMALL, aggregator="joint-vlad", local_weight=0.5)
    model = fit_vlad(with_local_head, photos, out, settings, INFO, CPU).model
    assert (model.architecture.aggregator, model.architecture.local_head) == ("joint-vlad", CONTEXT)
    sizes = JointVladSizes.of(model.part("aggregator"))
    assert (sizes.tokens, sizes.local) == (VladSizes(4, 2, 8, 0), VladSizes(4, 2, 4, 0))
    assert (sizes.head, sizes.dimension) == (LocalHeadSizes(hidden=8, dimension=4), 6)
    images = [decode_image(path) for path in sorted(photos.iterdir())]
    vectors = torch.stack([found.global_descriptor for found in load_extractor(str(out)).extract(images)])
    # The projection cancels the mean of the photos, to half precision and apart from their random views.
    assert float(vectors.mean(0).norm()) < 0.3 * float(vectors.norm(dim=1).mean())
    # Retrieval stays as it is where the head of the local map is trained further or removed.
    without = model.without_local_head()
    ours, theirs = (NeuralExtractor(one, "a", CPU).extract(images[:1])[0] for one in (model, without))
    assert torch.equal(ours.global_descriptor, theirs.global_descriptor)
    assert (ours.local_map.shape[1], theirs.local_map.shape[1]) == (4, 256)


def test_the_weight_of_the_local_part_is_in_the_projection(photos, with_local_head, tmp_path):
    """Without weight, the descriptors do not matter."""
    settings = replace(SMALL, aggregator="joint-vlad", local_weight=0.0)
    model = fit_vlad(with_local_head, photos, tmp_path / "joint.safetensors", settings, INFO, CPU).model
    projection = model.tensors["aggregator.projection"]
    assert not projection[:, 64:].any()
    assert projection[:, :64].abs().sum() > 0


def test_a_projection_is_learned_from_views_or_from_photos_too(photos, tiny, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(
        network, "projection_of", lambda vlads, *rest: counts.append(len(vlads)) or projection_of(vlads, *rest)
    )
    for average in (True, False):
        fit_vlad(tiny, photos, tmp_path / "out.safetensors", replace(SMALL, average_views=average), INFO, CPU)
    assert counts == [20, 20 * (2 + 1)]


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_joint_vlad_needs_a_local_head(photos, tiny, tmp_path, as_path):
    settings = replace(SMALL, aggregator="joint-vlad")
    with pytest.raises(ModelError, match=r"no local head, which joint-vlad copies; train one by `vpr-dhe train loc"):
        fit_vlad(tiny, as_path(photos), as_path(tmp_path / "out.safetensors"), settings, INFO, CPU)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("stage", ["cells", "views"])
def test_an_interrupted_fit_gives_the_same_file(photos, tiny, tmp_path, monkeypatch, stage):
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    fit_vlad(tiny, photos, whole, SMALL, INFO, CPU)

    def interrupt(name, _):
        counts = iter(range(100))
        return lambda _: (_ for _ in ()).throw(KeyboardInterrupt) if name == stage and next(counts) > 10 else None

    with pytest.raises(KeyboardInterrupt):
        fit_vlad(tiny, photos, resumed, SMALL, INFO, CPU, start_progress=interrupt)
    assert not resumed.exists()
    assert (tmp_path / "resumed.safetensors.partial" / f"{stage}-0.npz").exists()
    read, decode = [], network.decode_named
    monkeypatch.setattr(network, "decode_named", lambda path: read.append(path) or decode(path))
    fit_vlad(tiny, photos, resumed, SMALL, INFO, CPU)
    assert resumed.read_bytes() == whole.read_bytes()
    assert len(read) == (12 if stage == "views" else 12 + 20)  # the first eight images were stored
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed.safetensors", "whole.safetensors"]


def test_an_interrupted_fit_goes_on_under_the_same_settings_only(photos, tiny, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit_vlad(tiny, photos, out, SMALL, INFO, CPU, start_progress=interrupt)
    with pytest.raises(BadInputError, match=r"contains a run with seed = 0, not 1; .*remove .*out.safetensors.partial"):
        fit_vlad(tiny, photos, out, replace(SMALL, seed=1), INFO, CPU)
    (tmp_path / "out.safetensors.partial" / "vocabulary.npz").write_bytes(b"damaged")
    fit_vlad(tiny, photos, out, SMALL, INFO, CPU)
    assert list(tmp_path.iterdir()) == [out]


def test_published_weights_with_another_aggregator_are_no_longer_as_published(photos, tiny, tmp_path):
    """The published DHE-VPR compares vectors that are not normalised, and no index adapts it to its map."""
    published = replace(tiny, published=True, architecture=replace(tiny.architecture, unit_norm=False))
    fitted = fit_vlad(published, photos, tmp_path / "out.safetensors", SMALL, INFO, CPU).model
    assert (fitted.published, fitted.architecture.unit_norm) == (False, True)


def test_of_a_large_folder_a_sample_is_used(photos, tiny, tmp_path):
    first, again, other = (tmp_path / f"{name}.safetensors" for name in ("first", "again", "other"))
    for out, seed in ((first, 0), (again, 0), (other, 1)):
        assert fit_vlad(tiny, photos, out, replace(SMALL, seed=seed), INFO, CPU, max_images=12).images == 12
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    names = [f"{number:02}" for number in range(20)]
    samples = [fit_module._sampled(names, 12, seed) for seed in (0, 1)]
    assert samples[0] != samples[1]
    assert all(sorted(set(sample)) == sample and len(sample) == 12 for sample in samples)
    assert fit_module._sampled(names, 20, 0) == names


def test_the_first_soft_assignment_is_nearly_hard():
    random = np.random.default_rng(0)
    samples = random.normal(size=(500, 8)).astype(np.float32)
    fitted = network._vocabulary(samples, replace(SMALL, aggregator="netvlad"), soft=True)
    points = (samples - fitted["mean"]) @ fitted["whitening"]
    logits = points @ fitted["assignment.weight"].T + fitted["assignment.bias"]
    first, second = np.sort(logits, axis=1)[:, [-1, -2]].T
    assert np.mean(first - second) == pytest.approx(np.log(100), rel=1e-3)


def test_words_are_centres_of_whitened_cells():
    """Two clouds far apart along a diagonal, in noise of equal size, have their centres for words."""
    random = np.random.default_rng(0)
    side = np.where(np.arange(2000) % 2, 3.0, -3.0)[:, None]
    samples = (random.normal(size=(2000, 5)) * 0.1 + 7 + side * np.full(5, 5**-0.5)).astype(np.float32)
    vocabulary = fit_vocabulary(samples, VladSettings(words=2, reduced_dimension=1))
    np.testing.assert_allclose(vocabulary.mean, 7, atol=0.1)
    np.testing.assert_allclose(np.sort(vocabulary.centres[:, 0]), [-1, 1], atol=0.02)


@pytest.mark.slow
def test_sift_vlad_is_fitted_as_ever(photos, tmp_path):
    out = tmp_path / "fitted.safetensors"
    settings = replace(SMALL, reduced_dimension=24)
    fit_vlad(open_model("sift-vlad"), photos, out, settings, INFO, CPU)
    model = load_model(out)
    assert (model.name, model.licence, model.training_data) == ("sift-vlad", "Apache-2.0", "textures, CC0")
    tensors = {name: value.double() for name, value in model.tensors.items()}
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "aggregator.mean": (128,),
        "aggregator.whitening": (128, 24),
        "aggregator.centres": (4, 24),
        "aggregator.projection": (6, 2 * 4 * 24),
        "aggregator.offset": (6,),
        "backbone.local_projection": (256, 128),
    }
    assert tensors["aggregator.mean"][:4].tolist() == pytest.approx(MEAN, abs=1e-3)
    cosines = tensors["backbone.local_projection"].square().sum(1)[:4].tolist()
    assert cosines == pytest.approx(LOCAL_SHARES, abs=1e-2)
    assert sorted(tensors["aggregator.centres"].norm(dim=1).tolist()) == pytest.approx(CENTRE_NORMS, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"dimension": 20}, BadInputError, "20 images are too few: a projection to 20 dimensions needs more images"),
        ({"words": 900}, BadInputError, r"\d+ cells of the images are too few for 900 words"),
        (
            {"words": 1, "bands": 1, "dimension": 9},
            BadInputError,
            "1 words x 1 bands x 8 numbers is shorter than --dimension 9",
        ),
        ({"aggregator": "gem"}, ModelError, "choose one of vlad, netvlad"),
    ],
)
def test_what_cannot_be_fitted(photos, tiny, tmp_path, changes, error, complaint):
    with pytest.raises(error, match=complaint):
        fit_vlad(tiny, photos, tmp_path / "out.safetensors", replace(SMALL, **changes), INFO, CPU)
    assert not any(tmp_path.iterdir())


def test_sift_vlad_has_no_soft_assignment(photos, tmp_path):
    soft = replace(SMALL, aggregator="netvlad")
    with pytest.raises(ModelError, match="leave out --aggregator netvlad"):
        fit_vlad(open_model("sift-vlad"), photos, tmp_path / "out.safetensors", soft, INFO, CPU)
