"""Extractors of model files, from the file to a verified answer."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import ModelError, VerifierError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.models.model_file import Architecture, ModelFile, load_model
from vpr_dhe.records import Preprocessing, Size
from vpr_dhe.verification.estimators.dhe import DheHead

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def a_model(*, side: int, head: bool, unit_norm: bool = True) -> ModelFile:
    """A CCT of random weights, two blocks deep, with a random DHE head if asked for."""
    torch.manual_seed(0)
    backbone = build_backbone("cct_14_7x2_384", blocks=2, input_size=Size(side, side))
    parts = {"backbone": backbone, "aggregator": build_aggregator("gem-unit-cells", backbone.dimension)}
    if head:
        parts["head"] = DheHead()
    return ModelFile(
        "random",
        Architecture("cct_14_7x2_384", "gem-unit-cells", 2, "dhe" if head else None, unit_norm),
        Preprocessing(side, side, "bilinear", False, *IMAGENET),
        "none",
        "none",
        {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()},
    )


def test_features_follow_from_the_parts(tmp_path):
    model = a_model(side=96, head=False, unit_norm=False)
    model.save(tmp_path / "model.safetensors")
    extractor = load_extractor(str(tmp_path / "model.safetensors"))
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    feature = extractor.extract([image])[0]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    resized = torch.nn.functional.interpolate(tensor, (96, 96), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    backbone = build_backbone("cct_14_7x2_384", blocks=2, input_size=Size(96, 96))
    backbone.load_state_dict(model.part("backbone"))
    with torch.inference_mode():
        cells = normalize(backbone.eval()((resized - mean) / std).patches[0], dim=1)
    torch.testing.assert_close(feature.local_map, cells, rtol=1e-4, atol=1e-5)
    pooled = cells.clamp(min=1e-6).pow(3).mean(dim=0).pow(1 / 3)
    torch.testing.assert_close(feature.global_descriptor, pooled, rtol=1e-4, atol=1e-5)
    assert (tuple(feature.grid), feature.frame.image_size) == ((6, 6), Size(90, 70))


def test_a_model_with_its_head_verifies_by_dhe(tmp_path, photo_folder):
    path = tmp_path / "model.safetensors"
    a_model(side=384, head=True, unit_norm=False).save(path)
    extractor = load_extractor(str(path))
    index = PlaceIndex.create(tmp_path / "index", extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records[:3], extractor)
    localizer = Localizer.open(tmp_path / "index", verifier="dhe", rerank=2)
    matches = localizer.localize(photo_folder / "00.png", top_k=3).matches
    assert sorted(match.image for match in matches) == ["00.png", "01.png", "02.png"]
    assert all(match.homography is None or np.isfinite(match.homography).all() for match in matches)
    assert sum(not match.skipped for match in matches) == 2


def test_a_model_without_head_says_which_verifiers_work(tmp_path, photo_folder):
    path = tmp_path / "model.safetensors"
    a_model(side=96, head=False).save(path)
    extractor = load_extractor(str(path))
    index = PlaceIndex.create(tmp_path / "index", extractor.spec, photo_folder)
    with pytest.raises(VerifierError, match=r"holds no such head.*magsac"):
        Localizer.open(index.folder, verifier="dhe")


def test_weights_load_strictly(tmp_path):
    model = a_model(side=96, head=False)
    tensors = dict(model.tensors)
    tensors.pop("backbone.classifier.norm.bias")
    facts = (model.name, model.architecture, model.preprocessing, model.licence, model.training_data)
    ModelFile(*facts, tensors).save(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"classifier\.norm\.bias"):
        load_extractor(str(tmp_path / "model.safetensors"))


def test_the_fingerprint_tells_what_decides_the_features(tmp_path):
    model = a_model(side=96, head=False)
    model.save(tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").extractor_fingerprint == model.extractor_fingerprint
    facts = (model.name, model.architecture, model.preprocessing, model.licence, model.training_data)
    with_head = ModelFile(*facts, {**model.tensors, "head.linear.bias": torch.zeros(16)})
    assert with_head.extractor_fingerprint == model.extractor_fingerprint
    changed = ModelFile(*facts, {**model.tensors, "aggregator.p": torch.tensor([3.1])})
    assert changed.extractor_fingerprint != model.extractor_fingerprint


def test_bfloat16_gives_features_that_compare_with_those_of_single_precision(tmp_path):
    a_model(side=96, head=False).save(tmp_path / "model.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    full = load_extractor(str(tmp_path / "model.safetensors"))
    mixed = load_extractor(str(tmp_path / "model.safetensors"), precision="bf16")
    assert mixed.spec == full.spec
    (one,), (other,) = full.extract([image]), mixed.extract([image])
    for exact, rounded in ((one.global_descriptor, other.global_descriptor), (one.local_map, other.local_map)):
        assert rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)
        assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.999
    # Normalised after the products, and so in single precision.
    torch.testing.assert_close(other.local_map.norm(dim=1), torch.ones(36), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("images", "parts"), [(1, [1]), (2, [2]), (3, [1, 1, 1]), (8, [2, 3, 3])])
def test_batches_are_split_among_cores_with_the_same_features(tmp_path, images, parts):
    a_model(side=96, head=False).save(tmp_path / "model.safetensors")
    extractor = load_extractor(str(tmp_path / "model.safetensors"))
    pictures = list(np.random.default_rng(0).integers(0, 256, (images, 70, 90, 3), np.uint8))
    alone = [extractor.extract([picture])[0] for picture in pictures]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert [len(part) for part in extractor.split(pictures)] == parts
        together = extractor.extract(pictures)
    finally:
        torch.set_num_threads(before)
    assert len(together) == images
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.global_descriptor, theirs.global_descriptor, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.local_map, theirs.local_map, rtol=1e-4, atol=1e-5)


def test_a_compiled_network_is_given_whole_batches(tmp_path):
    a_model(side=96, head=False).save(tmp_path / "model.safetensors")
    extractor = load_extractor(str(tmp_path / "model.safetensors"))
    extractor._run = torch.nn.Sequential(extractor.network)
    assert len(extractor.split(range(64))) == 1
