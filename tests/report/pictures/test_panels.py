"""Pictures of alignments: what is drawn where."""

import numpy as np
import pytest
from patches import texture

from vpr_dhe.records import NOT_VERIFIED, DenseAlignment, EstimatorDetails, Verification
from vpr_dhe.report.pictures.panels import draw_alignment

NOWHERE = np.empty((0, 2))


def shifted(image, columns):
    return np.roll(image, columns, axis=1)


def dense(homography, flow_x, matchability, size=(30, 40)):
    flow = np.zeros((*size, 2), np.float32)
    flow[..., 0] = flow_x
    mask = np.full(size, matchability, np.float32)
    return DenseAlignment(homography[None], flow, mask, np.zeros(size, np.int64))


def test_the_fine_panel_shows_the_candidate_where_the_flow_says():
    query = texture(400, 300)
    candidate = shifted(query, 25)
    homography = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])
    details = EstimatorDetails("matchable_area", 1.0, dense(homography, 25.0, 1.0))
    picture = draw_alignment(query, candidate, Verification(homography, 9.0, NOWHERE, NOWHERE, details))
    assert picture.shape == (2 * 300 + 12, 2 * 400 + 12, 3)
    before, coarse, fine, matchable = (
        picture[top : top + 300, left : left + 400].astype(int) for top in (0, 312) for left in (0, 412)
    )
    inner = (slice(60, -10), slice(40, -60))  # without titles, and what was rolled over
    wrong = {name: np.abs(panel - query)[inner].mean() for name, panel in (("b", before), ("c", coarse), ("f", fine))}
    assert wrong["f"] < 1 < wrong["c"]
    assert wrong["f"] < 1 < wrong["b"]
    assert np.abs(matchable - query)[inner].mean() < 1


def test_what_is_not_matchable_is_dark_and_without_the_candidate():
    query = texture(400, 300)
    details = EstimatorDetails("matchable_area", 0.0, dense(np.eye(3), 0.0, 0.0))
    flat = np.full_like(query, 255)
    picture = draw_alignment(query, flat, Verification(np.eye(3), 9.0, NOWHERE, NOWHERE, details))
    fine, matchable = picture[372:, :400].astype(int), picture[372:, 412:].astype(int)
    assert np.abs(fine - query[60:]).max() == 0
    assert matchable.mean() < 0.3 * query[60:].mean()


def test_without_a_flow_it_is_one_overlay():
    query = texture(200, 160)
    picture = draw_alignment(query, query, Verification(np.eye(3), 9.0, NOWHERE, NOWHERE))
    assert picture.shape == query.shape
    with pytest.raises(ValueError, match="no homography"):
        draw_alignment(query, query, NOT_VERIFIED)
