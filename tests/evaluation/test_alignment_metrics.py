"""Measures of alignment against their definitions, computed another way."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation import alignment_metrics
from vpr_dhe.evaluation.alignment_metrics import (
    corner_error_auc,
    corner_error_px,
    end_point_error,
    flow_of_homography,
    mean_corner_error_of_succeeded_px,
    percentage_of_correct_keypoints,
)
from vpr_dhe.records import Size

THRESHOLDS = (1, 3, 5, 10)
errors_px = st.lists(st.floats(0, 40) | st.just(math.inf), min_size=1, max_size=30)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def area_by_definition(errors: list[float], threshold: float) -> float:
    """One trapezoid after another, as one would draw them."""
    area, x, recall = 0.0, 0.0, 0.0
    for number, error in enumerate(sorted(errors), start=1):
        if error >= threshold:
            break
        area += (error - x) * (recall + number / len(errors)) / 2
        x, recall = error, number / len(errors)
    return 100 * (area + (threshold - x) * recall) / threshold


@given(errors_px, st.floats(0.01, 30))
def test_auc_agrees_with_its_definition(errors, threshold):
    assert corner_error_auc(errors, [threshold])[threshold] == pytest.approx(area_by_definition(errors, threshold))


@given(st.lists(st.floats(0.01, 12) | st.just(math.inf), min_size=1, max_size=12, unique=True))
def test_auc_agrees_with_dense_integration(errors):
    finite = sorted(error for error in errors if error < 10)
    nodes = [0.0, *finite]
    recalls = np.arange(len(nodes)) / len(errors)
    x = (np.arange(200_000) + 0.5) * (10 / 200_000)
    # np.interp is level after the last node, as the curve is after the last error below the threshold.
    assert corner_error_auc(errors, [10])[10] == pytest.approx(100 * np.interp(x, nodes, recalls).mean(), abs=1e-2)


@given(errors_px)
def test_auc_grows_with_the_threshold_and_lies_between_0_and_100(errors):
    found = list(corner_error_auc(errors, THRESHOLDS).values())
    assert all(one <= other + 1e-9 for one, other in itertools.pairwise(found))
    assert all(-1e-9 <= value <= 100 + 1e-9 for value in found)


@given(errors_px, st.integers(0, 29))
def test_auc_does_not_fall_where_an_error_does(errors, which):
    better = list(errors)
    better[which % len(errors)] = 0.0
    for threshold in THRESHOLDS:
        assert corner_error_auc(better)[threshold] >= corner_error_auc(errors)[threshold] - 1e-9


@given(st.integers(1, 20))
def test_auc_of_perfect_and_of_failed_estimates(count):
    assert corner_error_auc([0.0] * count) == dict.fromkeys(THRESHOLDS, 100.0)
    assert corner_error_auc([math.inf] * count) == dict.fromkeys(THRESHOLDS, 0.0)


def test_auc_of_one_error():
    # A straight line up to the error, level after it: 1 - 2/10 + (2/10) / 2 of the area.
    assert corner_error_auc([2.0], [10, 2]) == {10: pytest.approx(90.0), 2: 0.0}


@pytest.mark.parametrize(
    ("errors", "thresholds"), [([], [1]), ([math.nan], [1]), ([-1.0], [1]), ([1.0], [0]), ([1.0], [1, -2])]
)
def test_auc_of_what_is_no_error_is_refused(errors, thresholds):
    with pytest.raises(BadInputError, match="at least one error"):
        corner_error_auc(errors, thresholds)


def test_the_mean_is_over_what_succeeded():
    assert mean_corner_error_of_succeeded_px([1.0, math.inf, 4.0]) == 2.5
    assert mean_corner_error_of_succeeded_px([math.inf]) is None


def test_corner_errors_are_distances_in_b():
    truth = np.diag([2.0, 2.0, 1.0])
    assert corner_error_px(shift(3, 4) @ truth, truth, Size(30, 20)) == pytest.approx(5.0)
    assert corner_error_px(truth, truth, Size(30, 20)) == 0.0
    assert corner_error_px(None, truth, Size(30, 20)) == math.inf
    # Twice as large about the top left corner: the others move by 29, |(29, 19)| and 19.
    expected = (0 + 29 + math.hypot(29, 19) + 19) / 4
    assert corner_error_px(truth, np.eye(3), Size(30, 20)) == pytest.approx(expected)


def test_the_flow_of_a_shift():
    flow = flow_of_homography(shift(2.5, -1), Size(6, 4), Size(7, 9))
    assert flow.displacement_px.shape == (4, 6, 2)
    assert torch.unique(flow.displacement_px.view(-1, 2), dim=0).tolist() == [[2.5, -1.0]]
    # x + 2.5 <= 6 and y - 1 >= 0.
    y, x = np.mgrid[0:4, 0:6]
    assert flow.inside.tolist() == ((x <= 3) & (y >= 1)).tolist()


def test_a_flow_agrees_with_the_homography_pixel_by_pixel():
    homography = np.array([[1.1, 0.1, -3], [-0.05, 0.9, 2], [1e-3, -2e-3, 1]])
    flow = flow_of_homography(homography, Size(20, 10), Size(20, 10))
    for x, y in ((0, 0), (19, 0), (7, 3), (19, 9)):
        mapped = homography @ [x, y, 1]
        expected = mapped[:2] / mapped[2]
        np.testing.assert_allclose(flow.displacement_px[y, x].numpy() + np.array([x, y]), expected)
        assert bool(flow.inside[y, x]) == bool((expected >= 0).all() and expected[0] <= 19 and expected[1] <= 9)


def test_what_lies_beyond_the_horizon_is_outside():
    # The horizon is x = 15; beyond it x / (1 - x / 15) is negative, and minus that would be inside.
    homography = np.array([[-1, 0, 0], [0, 0.01, 0], [-1 / 15, 0, 1]])
    flow = flow_of_homography(homography, Size(20, 3), Size(10_000, 3))
    assert not flow.inside[0, 16:].any()
    landed = flow.displacement_px[0, 16:] + torch.tensor([[float(x), 0.0] for x in range(16, 20)])
    assert ((landed >= 0) & (landed <= torch.tensor([9_999, 2]))).all()


def test_flow_errors_are_over_the_valid_pixels():
    truth = torch.zeros(2, 3, 2, dtype=torch.float64)
    flow = truth.clone()
    flow[0, 0] = torch.tensor([3.0, 4.0])
    flow[0, 1] = torch.tensor([0.0, 1.0])
    flow[1, 2] = torch.inf
    valid = torch.tensor([[True, True, True], [True, False, False]])
    assert end_point_error(flow, truth, valid) == 1.5
    assert percentage_of_correct_keypoints(flow, truth, valid) == {1: 75.0, 3: 75.0, 5: 100.0}
    for measure in (end_point_error, percentage_of_correct_keypoints):
        with pytest.raises(BadInputError, match="no valid pixel"):
            measure(flow, truth, torch.zeros(2, 3, dtype=torch.bool))


@given(st.floats(-6, 6), st.floats(-6, 6))
def test_a_shifted_estimate_is_off_by_the_shift_everywhere(x, y):
    size = Size(4, 3)
    truth = flow_of_homography(np.eye(3), size, size)
    flow = flow_of_homography(shift(x, y), size, size).displacement_px
    error = math.hypot(x, y)
    assert end_point_error(flow, truth.displacement_px, truth.inside) == pytest.approx(error)
    found = percentage_of_correct_keypoints(flow, truth.displacement_px, truth.inside, [error + 1e-6, error / 2 - 1e-9])
    assert list(found.values()) == [100.0, 0.0]


def test_flows_of_large_images_are_sampled_evenly(monkeypatch):
    homography = np.array([[1.1, 0.02, 5.0], [-0.03, 0.95, 2.0], [1e-4, 2e-4, 1.0]])
    size, target = Size(160, 120), Size(170, 110)
    whole = alignment_metrics.flow_of_homography(homography, size, target)
    monkeypatch.setattr(alignment_metrics, "_MAX_FLOW_PIXELS", 80 * 60)
    sampled = alignment_metrics.flow_of_homography(homography, size, target)
    assert sampled.inside.shape == (60, 80)
    # A sample lies in the middle of four pixels.
    middles = whole.displacement_px.view(60, 2, 80, 2, 2).mean(dim=(1, 3))
    assert torch.allclose(sampled.displacement_px, middles, atol=1e-2)
    assert float(sampled.inside.double().mean()) == pytest.approx(float(whole.inside.double().mean()), abs=0.01)
