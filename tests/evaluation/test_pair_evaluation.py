"""Pair sets run through aligners: those that know the answer, those that fail, and a real one."""

import json
import math
from functools import partial

import cv2
import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.datasets.pairs.base import HomographyPair, PairSet
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.pair_evaluation import evaluate_pair_set
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.records import NOT_VERIFIED, Image, Verification
from vpr_dhe.report.tables.pairs import alignment_document, alignment_table
from vpr_dhe.verification.alignment import build_aligner

WIDTH, HEIGHT = 40, 30


def blank(value: int) -> Image:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def shift(x: float, y: float = 0.0) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def pair(number: int, group: str = "", truth: np.ndarray | None = None) -> HomographyPair:
    """A pair whose number an aligner reads off the pixels of A."""
    homography = np.eye(3) if truth is None else truth
    return HomographyPair(f"pair {number}", group, partial(blank, number), partial(blank, 0), homography)


def answering(answers: list[np.ndarray | None]):
    """An aligner that gives each pair its answer, by the number in its pixels."""

    def align(image_a: Image, image_b: Image) -> Verification:
        homography = answers[image_a[0, 0, 0]]
        return NOT_VERIFIED if homography is None else Verification(homography, 9.0, np.zeros((9, 2)), np.zeros((9, 2)))

    return align


FOUR = PairSet("four", "made up", (pair(0, "light"), pair(1, "light"), pair(2, "view"), pair(3, "view")))


def test_scores_are_over_the_pairs_that_they_say():
    seen = []
    result = evaluate_pair_set(
        FOUR, {"some": answering([np.eye(3), shift(2), shift(0, 4), None])}, progress=seen.append
    )
    (method,) = result.methods
    scores = method.overall
    assert (result.dataset, result.protocol, result.num_pairs, seen) == ("four", "made up", 4, [1] * 4)
    assert [score.corner_error_px for score in method.pairs] == [0.0, 2.0, 4.0, math.inf]
    assert (scores.failed, scores.num_pairs, scores.mace_px, scores.median_px, scores.aepe_px) == (1, 4, 2.0, 3.0, 2.0)
    assert scores.correct_percent == {1: 25.0, 3: 50.0, 5: 75.0}
    # Up to 5 px: 0.25 at 0, 0.5 at 2, 0.75 from 4 on.
    assert scores.auc_percent[5] == pytest.approx(100 * (2 * 0.375 + 2 * 0.625 + 0.75) / 5)
    assert method.median_ms >= 0


def test_groups_have_scores_of_their_own():
    (method,) = evaluate_pair_set(FOUR, {"some": answering([np.eye(3), shift(2), None, None])}).methods
    light, view = method.groups["light"], method.groups["view"]
    assert (light.num_pairs, light.failed, light.mace_px, light.correct_percent[3]) == (2, 0, 1.0, 100.0)
    assert (view.num_pairs, view.failed, view.mace_px, view.aepe_px, view.median_px) == (2, 2, None, None, math.inf)
    assert set(view.auc_percent.values()) == set(view.correct_percent.values()) == {0.0}


def test_flows_are_measured_where_a_lies_inside_b():
    # A quarter of A lies inside B. The estimate is right at the corner of A that lies there, and wrong elsewhere.
    truth = shift(WIDTH / 2, HEIGHT / 2)
    stretched = np.array([[1.5, 0, WIDTH / 2], [0, 1, HEIGHT / 2], [0, 0, 1]])
    pairs = PairSet("one", "made up", (pair(0, truth=truth),))
    (method,) = evaluate_pair_set(pairs, {"some": answering([stretched])}).methods
    assert method.overall.aepe_px == pytest.approx(0.5 * np.arange(WIDTH // 2).mean())
    assert method.overall.correct_percent[3] == pytest.approx(100 * 7 / 20)
    assert method.groups == {}


def test_images_that_show_nothing_in_common_count_for_corners_alone():
    pairs = PairSet("one", "made up", (pair(0, truth=shift(1000)),))
    for answer, error_px in ((shift(1001), 1.0), (None, math.inf)):
        (method,) = evaluate_pair_set(pairs, {"some": answering([answer])}).methods
        assert method.pairs[0].corner_error_px == error_px
        assert (method.overall.aepe_px, method.overall.correct_percent) == (None, {})
        lines = alignment_table(evaluate_pair_set(pairs, {"some": answering([answer])})).splitlines()
        assert [line.split()[-1] for line in lines if line.startswith(("AEPE", "PCK@"))] == ["-"] * 4


def test_a_run_needs_a_method():
    with pytest.raises(BadInputError, match="no alignment method"):
        evaluate_pair_set(FOUR, {})


def test_the_document_is_strict_json():
    wild = np.array([[1, 0, 0], [0, 1, 0], [-2 / WIDTH, 0, 1]])
    aligners = {"good": answering([np.eye(3)] * 4), "bad": answering([None] * 4), "wild": answering([wild] * 4)}
    document = json.loads(
        json.dumps(alignment_document(evaluate_pair_set(FOUR, aligners), provenance()), allow_nan=False)
    )
    assert (document["dataset"], document["protocol"], document["num_pairs"]) == ("four", "made up", 4)
    good, bad, wild_one = document["methods"]
    assert (good["method"], good["mace_px"], good["failed"], good["aepe_px"]) == ("good", 0.0, 0, 0.0)
    assert good["auc"] == {"1": 100.0, "3": 100.0, "5": 100.0, "10": 100.0}
    assert good["pck"] == {"1": 100.0, "3": 100.0, "5": 100.0}
    assert (bad["mace_px"], bad["median_px"], bad["failed"], bad["aepe_px"]) == (None, None, 4, None)
    assert bad["pairs"][0] == {"name": "pair 0", "corner_error_px": None}
    assert set(bad["groups"]) == {"light", "view"}
    assert wild_one["mace_px"] > 0
    assert good["ms_per_pair"] >= 0


def test_the_table_sets_methods_side_by_side():
    aligners = {"good": answering([np.eye(3)] * 4), "bad": answering([shift(2), None, None, None])}
    lines = alignment_table(evaluate_pair_set(FOUR, aligners)).splitlines()
    assert lines[0] == "four (made up): 4 pairs; sparse keypoints"
    cells = {line[:30].strip(): line[30:].split() for line in lines[3:-1] if line.startswith(("AUC", "median", "MACE"))}
    assert lines[1].split() == ["good", "bad"]
    assert cells["AUC@1 px, %"] == ["100.0", "0.0"]
    assert cells["MACE, px"] == ["0.00", "2.00"]
    assert cells["median corner error, px"] == ["0.00", "failed"]
    assert any(line.startswith("view: failed") and line.endswith("2 of 2") for line in lines)


@pytest.mark.slow
def test_a_small_tree_of_hpatches_is_aligned_end_to_end(tmp_path):
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (60, 80, 3), np.uint8)
    image = cv2.GaussianBlur(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_NEAREST), (0, 0), 1.5)
    for name, homography in (
        ("i_light", np.eye(3)),
        ("v_view", np.array([[0.9, -0.12, 60], [0.1, 0.95, -20], [1e-4, -5e-5, 1]])),
    ):
        (tmp_path / name).mkdir()
        darker = (image * (0.7 if name == "i_light" else 1.0)).astype(np.uint8)
        warped = cv2.warpPerspective(darker, homography, (640, 480))
        for number in range(1, 7):
            PIL.Image.fromarray(image if number == 1 else warped).save(tmp_path / name / f"{number}.ppm")
            np.savetxt(tmp_path / name / f"H_1_{number}", homography)
    pairs = read_pairs(tmp_path)
    two = PairSet(pairs.name, pairs.protocol, (pairs.pairs[0], pairs.pairs[5]))
    (method,) = evaluate_pair_set(two, {"magsac": build_aligner("magsac")}).methods
    assert method.overall.auc_percent[5] > 90
    assert method.overall.correct_percent[1] > 95
    assert list(method.groups) == ["illumination", "viewpoint"]
