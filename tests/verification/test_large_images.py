"""Alignment of large images: as accurate as that of small ones, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.features import keypoints
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography, mean_corner_error, project
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import DenseAlignment, EstimatorDetails, Image, Size, Verification
from vpr_dhe.verification.alignment import align, build_aligner, open_picture
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.rescaling import PairSizes, rescaled
from vpr_dhe.verification.verifier import Verifier
from vpr_dhe.verification.window_refinement import refined_in_windows
from vpr_dhe.verification.working_copy import MAX_WORKING_PIXELS, Picture


def texture(size: Size, seed: int = 0) -> Image:
    """Blobs of many sizes, from a few pixels to a tenth of the image."""
    rng, grey = np.random.default_rng(seed), np.zeros((size.height, size.width), np.uint8)
    for blob_px in (8, 32, 128, 512):
        cells = rng.integers(0, 64, (size.height // blob_px + 2, size.width // blob_px + 2), np.uint8)
        grey += cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC).clip(0, 63)
    return np.repeat(grey[..., None], 3, axis=2)


def warped(image: Image, seed: int = 1) -> tuple[Image, torch.Tensor]:
    size = image_size(image)
    moves = (0.1 * torch.rand(4, 2, generator=torch.Generator().manual_seed(seed)) - 0.05) * torch.tensor(size)
    truth = four_point_homography(corners(size), corners(size) + moves.double())
    return cv2.warpPerspective(image, truth.numpy(), size), truth


def error_px(found: Verification, truth: torch.Tensor, size: Size) -> float:
    assert found.homography is not None
    return float(mean_corner_error(torch.from_numpy(found.homography), truth, corners(size)))


@pytest.fixture
def low_bound(monkeypatch) -> None:
    """Working copies of 270,000 pixels, for tests that need not take seconds."""
    monkeypatch.setattr("vpr_dhe.verification.working_copy.MAX_WORKING_PIXELS", 270_000)


@pytest.fixture
def detected(monkeypatch) -> list[tuple[int, int]]:
    """Pixels and keypoints of each detection."""
    seen, create = [], cv2.SIFT.create

    class Spy:
        def __init__(self, *arguments, **options) -> None:
            self._detector = create(*arguments, **options)

        def detectAndCompute(self, grey, mask):
            found = self._detector.detectAndCompute(grey, mask)
            seen.append((grey.size, len(found[0])))
            return found

    monkeypatch.setattr(keypoints.cv2.SIFT, "create", Spy)
    return seen


@pytest.mark.slow
def test_forty_megapixels_are_aligned_to_a_fraction_of_a_pixel_by_few_keypoints_in_few_pixels(detected):
    size = Size(7300, 5480)
    image = texture(size)
    other, truth = warped(image)
    found = align(image, other)
    assert error_px(found, truth, size) < 0.3
    assert found.inliers > 100
    assert max(pixels for pixels, _ in detected) <= 1.01 * MAX_WORKING_PIXELS
    assert max(count for _, count in detected) <= keypoints.MAX_KEYPOINTS + 10
    windows = [count for pixels, count in detected if pixels <= MAX_WORKING_PIXELS / 2]
    assert sum(windows) <= 3 * (keypoints.MAX_KEYPOINTS + 100)


@pytest.mark.usefixtures("low_bound")
def test_a_large_image_and_a_small_one(tmp_path):
    size = Size(1500, 1000)
    image = texture(size)
    other, truth = warped(image)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    PIL.Image.fromarray(other[300:700, 400:900]).save(tmp_path / "b.png")
    shift = torch.eye(3, dtype=torch.float64)
    shift[:2, 2] = torch.tensor([-400, -300])
    assert error_px(align(tmp_path / "a.png", tmp_path / "b.png"), shift @ truth, size) < 1
    back = torch.linalg.inv(shift @ truth)
    assert error_px(align(tmp_path / "b.png", tmp_path / "a.png"), back / back[2, 2], Size(500, 400)) < 1


@pytest.mark.slow
@pytest.mark.usefixtures("low_bound")
def test_windows_that_contradict_the_working_copies_are_not_believed():
    size = Size(1500, 1000)
    image = texture(size)
    other, truth = warped(image)
    # Windows of another image, which is a little larger than its working copy says.
    moved = cv2.warpPerspective(other, np.array([[1.02, 0, -15], [0, 1.02, -10], [0, 0, 1]]), size)
    picture = Picture(size, open_picture(other).working, Picture.of_image(moved).cut)
    kept = build_aligner("magsac")(image, picture)
    assert error_px(kept, truth, size) < 1


def test_images_below_the_bound_are_their_own_working_copies():
    image = texture(Size(400, 300))
    picture = open_picture(image)
    assert picture.working is image
    assert not picture.is_reduced
    other, truth = warped(image)
    assert error_px(align(image, other), truth, Size(400, 300)) < 0.5


@pytest.mark.parametrize(("options", "most_px"), [((), 1.0), (("--model", "sift-vlad"), 10.0)])
@pytest.mark.slow
def test_overlays_of_large_images_are_reduced(run_large, options, most_px, tmp_path):
    overlay = tmp_path / "o.png"
    document = run_large(*options, "--overlay", overlay)
    assert document["inliers"] > 20
    assert cv2.imread(str(overlay)).shape == (450, 600, 3)
    found = torch.tensor(document["homography"], dtype=torch.float64)
    assert mean_corner_error(found, torch.eye(3, dtype=torch.float64), corners(Size(1200, 900))) < most_px


@pytest.fixture
def run_large(low_bound, tmp_path, monkeypatch, capsys):
    """Align a photo of 1200 x 900 pixels with itself."""
    from vpr_dhe.cli import main

    PIL.Image.fromarray(texture(Size(1200, 900))).save(tmp_path / "a.jpg")

    def call(*options):
        pair = (tmp_path / "a.jpg", tmp_path / "a.jpg")
        monkeypatch.setattr("sys.argv", ["vpr-dhe", "align", *map(str, (*pair, "--format", "json", *options))])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return json.loads(capsys.readouterr().out)

    return call


SIZES = st.builds(Size, st.integers(16, 4000), st.integers(16, 4000))


@given(st.builds(PairSizes, SIZES, SIZES), st.builds(PairSizes, SIZES, SIZES), st.integers(0, 99))
def test_rescaled_results_show_the_same_and_come_back(before, after, seed):
    rng = np.random.default_rng(seed)
    homography = np.array([[1, 0, rng.normal()], [0, 1, rng.normal()], [1e-5, -1e-5, 1]]) + 0.01 * rng.normal(
        size=(3, 3)
    )
    homography /= homography[2, 2]
    points = rng.uniform(0, before.query, (5, 2))
    there = project(torch.from_numpy(homography), torch.from_numpy(points)).numpy()
    flow = DenseAlignment(
        homography[None],
        rng.normal(size=(3, 4, 2)).astype(np.float32),
        np.ones((3, 4), np.float32),
        np.zeros((3, 4), np.int64),
    )
    found = Verification(homography, 5.0, points, there, EstimatorDetails("area", 0.5, flow))
    moved = rescaled(found, before, after)
    assert moved.homography is not None
    mapped = project(torch.from_numpy(moved.homography), torch.from_numpy(moved.query_points)).numpy()
    np.testing.assert_allclose(mapped, moved.candidate_points, rtol=1e-6, atol=1e-4)
    back = rescaled(moved, after, before)
    np.testing.assert_allclose(back.homography, homography, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(back.query_points, points, atol=1e-6)
    assert back.details is not None
    assert back.details.alignment is not None
    np.testing.assert_allclose(back.details.alignment.flow_px, flow.flow_px, atol=1e-2)


# Unlike `resource.getrusage`, without the peak of the process that started it.
# Beyond what the imports take, which is more in some builds of torch.
PEAK = """
import sys
from pathlib import Path
from vpr_dhe.cli import main
import torch, vpr_dhe.verification.alignment

def peak_kib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak_kib()
try:
    main()
finally:
    print("more KiB:", peak_kib() - before, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "limit_gib"), [("jpg", 0.5), ("png", 0.6)])
def test_a_hundred_megapixels_take_half_a_gigabyte(tmp_path: Path, ending, limit_gib):
    size = Size(11_500, 8_650)
    image = texture(size)
    other, truth = warped(image)
    for name, pixels in (("a", image), ("b", other)):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.{ending}", compress_level=1)
    del image, other, pixels
    pair = [str(tmp_path / f"{name}.{ending}") for name in ("a", "b")]
    command = [sys.executable, "-c", PEAK, "align", *pair, "--format", "json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stderr.split("more KiB: ")[1]) < limit_gib * 2**20
    matrix = torch.tensor(json.loads(done.stdout)["homography"], dtype=torch.float64)
    assert float(mean_corner_error(matrix, truth, corners(size))) < 1


@pytest.mark.parametrize("turned", [False, True], ids=["wall on the right", "wall on the left"])
def test_a_wall_that_a_camera_drives_along_is_aligned_on_either_side(turned):
    """Of the view that was 6 m further back, a part lies beyond the horizon."""
    camera = np.array([[320.0, 0, 319.5], [0, 320.0, 239.5], [0, 0, 1]])
    motion = np.array([[5.0, 0, 0], [0, 5.0, 0], [6.0 if turned else -6.0, 0, 5.0]])
    truth = camera @ motion @ np.linalg.inv(camera)
    truth /= truth[2, 2]
    query = texture(Size(640, 480))
    seen = cv2.warpPerspective(query, truth, (640, 480))
    found = align(query, seen)
    assert found.homography is not None
    inner = torch.tensor([[300.0, 200.0], [340.0, 200.0], [340.0, 280.0], [300.0, 280.0]], dtype=torch.float64)
    apart = project(torch.from_numpy(found.homography), inner) - project(torch.from_numpy(truth), inner)
    assert apart.norm(dim=1).max() < 1


def test_an_estimate_without_inliers_is_not_refined_in_windows():
    size = Size(2000, 1500)
    picture = Picture.of_image(texture(size))
    start = Verification(np.eye(3), 0.0, np.empty((0, 2)), np.empty((0, 2)))
    assert refined_in_windows(picture, picture, start, Verifier(build_estimator("magsac"))) is start
