"""What the benchmark across modalities states: its homographies, its means, and how networks learned."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr_dhe.records import NOT_VERIFIED

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import cross_modal
from aligned_folder import write_aligned_pairs


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "textures"
    write_aligned_pairs(folder / "test", 3, side_px=192)
    return folder


def test_the_stated_homography_lays_a_on_b(parts):
    for pair in cross_modal.deformed_pairs(parts, seed=1).pairs:
        image_a, image_b = pair.image_a(), pair.image_b()
        assert image_a.shape == image_b.shape == (cross_modal.SIDE_PX, cross_modal.SIDE_PX, 3)
        size = (cross_modal.SIDE_PX, cross_modal.SIDE_PX)
        laid = cv2.warpPerspective(image_a, pair.homography, size)
        covered = cv2.erode(cv2.warpPerspective(np.full(size, 255, np.uint8), pair.homography, size), np.ones((5, 5)))
        # B is the negative of A with its channels in the other order.
        difference = np.abs(laid[covered == 255].astype(int) - (255 - image_b[:, :, ::-1])[covered == 255])
        assert difference.mean() < 3


def test_who_fails_counts_as_if_nothing_had_moved(parts):
    methods = {cross_modal.UNMOVED: cross_modal.unmoved, "fails": lambda *_: NOT_VERIFIED}
    unmoved, fails = cross_modal.measure(parts, [0, 1], methods, {})
    assert fails.mace_px == unmoved.mace_px
    assert (fails.failed, unmoved.failed) == (6, 0)
    assert 10 < min(unmoved.mace_px) < max(unmoved.mace_px) < 32 * 2**0.5


def test_how_a_network_learned_is_read_beside_it(tmp_path):
    assert cross_modal.learned(tmp_path / "best.safetensors", "photos").training == "not known"
    facts = {"steps": 400, "batch_size": 16, "side_px": 64, "width": 32}
    (tmp_path / "training.json").write_text(json.dumps(facts))
    found = cross_modal.learned(tmp_path / "best.safetensors", "photos")
    assert found == ("photos", "400 steps of 16, 64 px, width 32")


def test_trainings_of_one_method_are_one_row():
    def row(method, *mace_px, training="9 steps"):
        mean = (sum(mace_px) / len(mace_px),)
        return cross_modal.Row("places", 3, method, "photos", training, mace_px, mean, mace_px[0], 0, 5.0)

    rows = [row("alto (a-0)", 10.0, 12.0), row("alto (b-64)", 1.0, 3.0), row("alto (a-1)", 14.0, 16.0)]
    longer = row("alto (a-2)", 1.0, 1.0, training="10 steps")
    joined, alone, unlike = cross_modal.over_trainings([*rows, longer])
    assert unlike == longer
    assert (joined.method, joined.mace_px, joined.of_trainings_px) == ("alto (a)", (12.0, 14.0), (11.0, 15.0))
    assert alone == rows[1]
    assert "| 13.00 | ± 1.00 | ± 2.83 |" in cross_modal.markdown([joined])
