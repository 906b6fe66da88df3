"""Images of more pixels than are worth decoding: the answers and coordinates of the whole image, in little memory."""

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.errors import ImageError
from vpr_dhe.images import opened
from vpr_dhe.images.loading import load_for_input
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import ImageRecord, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

MEASURED = """
import resource, sys
from vpr_dhe import Localizer, PlaceIndex, ImageRecord, load_extractor
extractor = load_extractor("sift-vlad")
folder, name, other = sys.argv[1:]
resource_kib = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
index = PlaceIndex.create(f"{folder}/index-{name}", extractor.spec, folder, codec="float16")
index.add([ImageRecord(other)], extractor)
before = resource_kib()
index.add([ImageRecord(name)], extractor)
best = Localizer.open(index.folder, rerank=2).localize(f"{folder}/{name}").matches[0]
print(best.image, best.inliers, (resource_kib() - before) // 1024, *best.homography.ravel())
"""


def test_answers_are_in_pixels_of_the_original(tmp_path, photo_folder, thumbnail_extractor, monkeypatch):
    (tmp_path / "large").mkdir()
    for path in sorted(photo_folder.glob("*.png")):
        PIL.Image.open(path).resize((640, 480), PIL.Image.Resampling.BICUBIC).save(tmp_path / "large" / path.name)
    monkeypatch.setattr(opened, "LARGE_PIXELS", 50_000)
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, tmp_path / "large", codec="float16")
    index.add([ImageRecord(f"{number:02d}.png") for number in range(10)], thumbnail_extractor)
    assert index.frame(3).image_size == Size(640, 480)
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), thumbnail_extractor)
    best = localizer.localize(tmp_path / "large/03.png").matches[0]
    assert (best.image, best.inliers) == ("03.png", 16)
    np.testing.assert_allclose(best.homography, np.eye(3), atol=0.05)
    assert best.verification.query_points.max() > 300
    loaded = load_for_input(tmp_path / "large/03.png", Size(16, 16))
    assert (loaded.original_size, loaded.image.shape, loaded.whole().shape) == ((640, 480), (32, 42, 3), (480, 640, 3))
    small = Localizer(localizer.database, thumbnail_extractor, max_pixels=1000)
    with pytest.raises(ImageError, match="more than the 1,000"):
        small.localize(tmp_path / "large/03.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "ending"), [((12_000, 9_000), "jpg"), ((16_384, 8_192), "jpg"), ((16_384, 8_192), "png")]
)
def test_photos_of_phones_and_panoramas_take_bounded_memory(tmp_path, size, ending):
    for seed, name in enumerate((f"large.{ending}", "small.jpg")):
        coarse = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        picture = PIL.Image.fromarray(coarse).resize(size if seed == 0 else (640, 480), PIL.Image.Resampling.BICUBIC)
        picture.save(tmp_path / name, **({"compress_level": 1} if ending == "png" else {}))
        del picture
    arguments = [sys.executable, "-c", MEASURED, tmp_path, f"large.{ending}", "small.jpg"]
    image, inliers, mebibytes, *homography = subprocess.run(
        arguments, check=True, capture_output=True, text=True
    ).stdout.split()
    assert (image, int(inliers) > 50) == (f"large.{ending}", True)
    # A PNG is decoded whole before it is averaged: 16,384 x 8,192 pixels are 4 bytes each in Pillow.
    assert int(mebibytes) < (700 if ending == "png" else 250)
    corner = np.array(homography, float).reshape(3, 3) @ [*size, 1]
    np.testing.assert_allclose(corner[:2] / corner[2], size, rtol=0.002)
