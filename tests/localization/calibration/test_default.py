"""Bundled calibrations: one for each default, for any map, and more evidence never makes an answer less sure."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.localization.calibration.default import default_calibration
from vpr_dhe.localization.calibration.features import CalibrationFeatures
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.models.names import DEFAULT_MODEL, SIFT_VLAD
from vpr_dhe.records import Localization, RankedMatch, Timing
from vpr_dhe.verification.names import DEFAULT_VERIFIER


def conditions(model: str, **other) -> Conditions:
    return replace(Conditions(load_extractor(model).spec.fingerprint, DEFAULT_VERIFIER, 100, None, "int8"), **other)


@pytest.mark.parametrize("order", ["evidence", "inliers"])
@pytest.mark.parametrize("model", sorted({DEFAULT_MODEL, SIFT_VLAD}))
def test_each_default_has_one(model, order):
    wanted = conditions(model, rank_by=order, adaptation="adapted-1")
    found = default_calibration(wanted)
    assert found is not None
    assert found.conditions == wanted
    for other in (
        {"rerank": 20},
        {"verifier": "poselib"},
        {"fingerprint": "another"},
        {"stop_early": 8.0},
        {"learned": "weights"},
    ):
        assert default_calibration(replace(wanted, **other)) is None


CALIBRATION = default_calibration(conditions(DEFAULT_MODEL, rank_by="evidence"))
INLIERS = st.integers(0, 400).map(float)


@given(INLIERS, INLIERS, st.integers(1, 50), st.floats(-1, 1), st.floats(-1, 1))
def test_more_inliers_and_weaker_rivals_make_it_more_probable(score, rival, more, similarity, other):
    before = CALIBRATION.probability(CalibrationFeatures(score, similarity, rival))
    assert CALIBRATION.probability(CalibrationFeatures(score + more, similarity, rival)) >= before
    assert CALIBRATION.probability(CalibrationFeatures(score, similarity, max(0.0, rival - more))) >= before
    # Its scale depends on the map.
    assert CALIBRATION.probability(CalibrationFeatures(score, other, rival)) == before


def test_few_inliers_are_weak_and_many_are_strong():
    assert CALIBRATION.probability(CalibrationFeatures(300.0, 0.8, 30.0)) >= 0.9
    assert CALIBRATION.probability(CalibrationFeatures(12.0, 0.3, 11.0)) < 0.5


@pytest.mark.parametrize(
    ("probability", "confidence"),
    [(None, None), (0.0, "unknown"), (0.499, "unknown"), (0.5, "unsure"), (0.899, "unsure"), (0.9, "sure")],
)
def test_confidence_in_a_word(probability, confidence):
    match = RankedMatch(1, "a.jpg", 0.5, 12.0, None, None, probability)
    timing = Timing(1.0, 1.0, 1.0)
    assert confidence_of(Localization((match,), timing)) == confidence
    assert confidence_of(Localization((), timing, rejected=match, known=False)) == confidence
    assert confidence_of(Localization((), timing)) is None
    assert confidence_of(None) is None
