"""Contract of all published families, from the checkpoint to answers, through the program.

Models are small: of the layout of their family, with made-up weights and few blocks. Photos are of places that look
nothing like each other.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import pytest
from small_families import VARIANTS, shallow_dinov2, write_checkpoints

from tests.cli.test_commands import call
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.loading import load_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.models.importers import FAMILIES
from vpr_dhe.models.model_file import load_model

pytestmark = pytest.mark.slow

PLACES, VIEWS, STEP_M = 8, 3, 100
# As many as `adapt` needs to decide.
MAP_PLACES, MAP_VIEWS = 16, 4
QUERIES = 6
MAX_RELATIVE_DIFFERENCE = 1e-4
RERANK = 3
WITH_CODES = "selavprpp-codes"
# A network with a head, a convolutional one, transformers with and without local maps of their own, and binary codes;
# tests/features/test_onnx_graphs.py converts the parts of all.
EXPORTED = {"dhe-vpr", "cosplace", "salad", "fol", WITH_CODES}
# Calibration and adaptation see nothing of a family but descriptors and inliers, which `test_places_are_found` checks.
CALIBRATED, ADAPTED = {"cosplace", "fol"}, "cosplace"
assert {*FAMILIES, *VARIANTS} >= EXPORTED | CALIBRATED | {ADAPTED}


class Indexed(NamedTuple):
    """A model of a family, and an index of the database."""

    family: str
    model: Path
    index: Path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Places far from each other, each photographed from a few spots, and some asked for by a noisy photo."""
    return write_places(tmp_path_factory.mktemp("places"), PLACES, VIEWS)


def write_places(root: Path, places: int, views: int) -> Path:
    random = np.random.default_rng(3)
    for place in range(places):
        coarse = random.integers(0, 256, (9, 12, 3), np.uint8)
        photo = cv2.resize(coarse, (240, 180), interpolation=cv2.INTER_CUBIC)
        for view in range(views):
            _save(root, "database", place, 3 * view, photo[3 * view :, 4 * view :])
        if place < QUERIES:
            _save(root, "queries", place, 5, (photo + random.normal(0, 10, photo.shape))[:174, :232])
    return root


def _save(root: Path, side: str, place: int, shift_m: int, pixels: np.ndarray) -> None:
    path = root / "images/test" / side / f"@{500_000 + place * STEP_M + shift_m}@5000000@31@U@@@@@@@@@@.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


@pytest.fixture(scope="module", params=[*FAMILIES, *VARIANTS])
def indexed(request, data, tmp_path_factory) -> Iterator[Indexed]:
    folder = tmp_path_factory.mktemp(request.param)
    made = Indexed(request.param, folder / "model.safetensors", folder / "index")
    with shallow_dinov2():
        call("import-weights", *write_checkpoints(made.family, folder), "--out", made.model)
        # The choice of a codec verifies pairs, which takes minutes for the networks and large maps of some families.
        options = ("--model", made.model, "--codec", "float16", "--device", "cpu")
        if made.family == WITH_CODES:
            options += ("--index-type", "binary-codes")
        call("index", data / "images/test/database", "--out", made.index, *options)
        yield made


def queries(data: Path) -> list[Path]:
    return sorted((data / "images/test/queries").iterdir())


def answers(indexed: Indexed, photos: list[Path], *options: object) -> list[dict]:
    done = call("query", indexed.index, *photos, "--rerank", RERANK, "--device", "cpu", "--format", "json", *options)
    found = json.loads(done.stdout)["queries"]
    assert [one["error"] for one in found] == [None] * len(photos)
    return found


def place(name: str) -> int:
    return round((float(name.split("@")[1]) - 500_000) / STEP_M)


def test_the_family_is_found_by_itself(indexed):
    origin = load_model(indexed.model).origin
    assert origin is not None
    assert origin.files
    assert f"{VIEWS * PLACES} images" in call("check", indexed.index).stdout


@pytest.mark.parametrize("verifier", ["none", "magsac"])
def test_places_are_found(indexed, data, verifier):
    found = answers(indexed, queries(data), "--verifier", verifier)
    right = [place(one["matches"][0]["image"]) == number for number, one in enumerate(found)]
    assert sum(right) >= QUERIES - 1
    assert all(np.isfinite(match["similarity"]) for one in found for match in one["matches"])
    if verifier != "none":
        assert max(one["matches"][0]["inliers"] for one in found) > 0


def test_an_image_of_the_database_finds_itself(indexed, data):
    photos = sorted((data / "images/test/database").iterdir())[:2]
    for photo, one in zip(photos, answers(indexed, photos, "--verifier", "none"), strict=True):
        assert one["matches"][0]["image"] == photo.name


def test_features_depend_on_no_other_image(indexed, data):
    extractor = load_extractor(str(indexed.model), runtime="torch")
    images = [load_image(path) for path in queries(data)[:3]]
    together = extractor.extract(images)
    for image, features in zip(images, together, strict=True):
        (alone,) = extractor.extract([image])
        require_near(alone.global_descriptor, features.global_descriptor)
        require_near(alone.local_map, features.local_map)


def test_it_is_calibrated(indexed, data):
    if indexed.family not in CALIBRATED:
        pytest.skip("a few families are calibrated")
    said = call("calibrate", indexed.index, "--data", data, "--rerank", RERANK, "--device", "cpu").stdout
    assert f"calibrated for magsac, top {RERANK}, on {QUERIES} queries" in said
    (one,) = answers(indexed, queries(data)[:1])
    assert 0 < one["matches"][0]["probability"] < 1


def test_it_is_adapted_only_if_asked(indexed, tmp_path):
    assert load_model(indexed.model).published
    assert PlaceIndex.open(indexed.index).manifest.settings.adapt == "off"
    if indexed.family != ADAPTED:
        return
    data = write_places(tmp_path, MAP_PLACES, MAP_VIEWS)
    large = indexed._replace(index=tmp_path / "index")
    options = ("--model", large.model, "--codec", "float16", "--device", "cpu")
    call("index", data / "images/test/database", "--out", large.index, *options)
    before = [one["matches"][0]["image"] for one in answers(large, queries(data), "--verifier", "none")]
    report = json.loads(call("adapt", large.index, "--format", "json").stdout)
    assert "centring" in {trial["step"] for trial in report["trials"]}
    assert len(answers(large, queries(data), "--verifier", "none")) == QUERIES
    call("adapt", large.index, "--adapt", "off")
    after = [one["matches"][0]["image"] for one in answers(large, queries(data), "--verifier", "none")]
    assert after == before


def test_its_export_computes_the_same(indexed, data, tmp_path):
    if indexed.family not in EXPORTED:
        pytest.skip("a few families are exported whole")
    pytest.importorskip("onnxscript", reason="no onnxscript; install the extra `export`")
    call("export", indexed.model, "--out", tmp_path / "onnx")
    parts = json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert parts
    images = [load_image(path) for path in queries(data)[:2]]
    exported: Extractor = load_extractor(str(tmp_path / "onnx"))
    ours = load_extractor(str(indexed.model), runtime="torch")
    assert exported.spec.fingerprint == ours.spec.fingerprint
    for expected, found in zip(ours.extract(images), exported.extract(images), strict=True):
        require_near(found.global_descriptor, expected.global_descriptor)
        require_near(found.local_map, expected.local_map)
        assert (found.code is None) == (expected.code is None) == (indexed.family != WITH_CODES)
        if found.code is not None:
            # Rounding may decide a bit whose number is next to zero.
            assert np.unpackbits(found.code.numpy() ^ expected.code.numpy()).sum() <= 1
    onnx = ("--model", tmp_path / "onnx", "--runtime", "onnx")
    for one, other in zip(answers(indexed, queries(data)), answers(indexed, queries(data), *onnx), strict=True):
        # Rounding may swap the views of one place.
        assert place(one["matches"][0]["image"]) == place(other["matches"][0]["image"])


def test_binary_codes_are_evaluated_and_refused_elsewhere(indexed, data):
    options = ("--model", indexed.model, "--codec", "float16", "--device", "cpu", "--index-type", "binary-codes")
    command = ("evaluate", data, *options, "--verifier", "none", "--radius-m", 25)
    if indexed.family == WITH_CODES:
        (file,) = PlaceIndex.open(indexed.index).manifest.vector_files
        assert file.built.kind == "binary-codes"
        assert "100.0" in call(*command).stdout
    else:
        said = call(*command, expect=2).stderr
        assert "makes none; use a model that `vpr-dhe models` lists with codes" in " ".join(said.split())


def require_near(found, expected) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < MAX_RELATIVE_DIFFERENCE
