"""Probabilities where the truth is known."""

import math

import numpy as np
import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Example, Method, example_weights, fit
from vpr_dhe.localization.calibration.features import CalibrationFeatures
from vpr_dhe.localization.calibration.probability import Calibration, Conditions, logistic
from vpr_dhe.records import RankedMatch
from vpr_dhe.sequences.likelihood import CalibratedLikelihood

CONDITIONS = Conditions("fingerprint", "magsac", 20)
TRUTH = {"score": 1.5, "similarity": 4.0, "margin": 2.0}
TRUE_INTERCEPT = -6.0


def drawn(count: int, seed: int) -> list[Example]:
    """Queries whose best match is right with a probability that is a logistic function of the features."""
    random = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        score, similarity = float(random.integers(0, 60)), float(random.uniform(0, 1))
        features = CalibrationFeatures(score, similarity, float(random.uniform(0, score)))
        right = random.random() < true_probability(features)
        examples.append(Example(features, bool(right), number % 2 == 0, frozenset()))
    return examples


def true_probability(features: CalibrationFeatures) -> float:
    return logistic(TRUE_INTERCEPT + sum(weight * features.inputs[name] for name, weight in TRUTH.items()))


def fitted(examples: list[Example], method: Method = Method.logistic, prior: float = 0.5) -> Calibration:
    return fit(examples, Assumptions(25.0, prior, method), CONDITIONS, images=7)


@pytest.mark.parametrize("method", Method)
def test_probabilities_approach_the_true_ones(method):
    calibration = fitted(drawn(2000, seed=1), method)
    errors = [abs(calibration.probability(one.features) - true_probability(one.features)) for one in drawn(300, seed=2)]
    assert np.mean(errors) < 0.04
    assert (calibration.examples, calibration.images, bool(calibration.steps)) == (2000, 7, method is Method.isotonic)


@pytest.mark.parametrize("method", Method)
def test_any_evidence_has_a_probability(method):
    calibration = fitted(drawn(200, seed=3), method)
    for score in (0.0, 1e9):
        for similarity in (-1e9, 0.0, 1.0):
            assert 0 <= calibration.probability(CalibrationFeatures(score, similarity, 0.0)) <= 1


def test_the_prior_is_the_share_of_queries_whose_place_is_known():
    examples = drawn(60, seed=4)[:31]
    known = np.array([example.place_known for example in examples])
    weights = example_weights(examples, 0.8)
    assert weights.sum() == pytest.approx(31)
    assert weights[known].sum() == pytest.approx(0.8 * 31)
    # Where evidence says nothing, the probability is the share of right answers among queries of such a mixture.
    same = CalibrationFeatures(5.0, 0.5, 3.0)
    blind = [Example(same, right, right, frozenset()) for right in (True, False, False, False)]
    for prior in (0.2, 0.5, 0.9):
        assert fitted(blind, prior=prior).probability(same) == pytest.approx(prior, abs=1e-3)


def test_evidence_that_says_nothing_is_no_evidence():
    """Of queries whose place is known, some best matches are wrong: their share is not that of right matches."""
    same = CalibrationFeatures(5.0, 0.5, 3.0)
    blind = [Example(same, right, known, frozenset()) for right, known in ((True, True), (False, True), (False, False))]
    for prior, share in ((0.5, 0.25), (0.8, 0.4)):
        calibration = fitted(blind, prior=prior)
        assert calibration.right_share == pytest.approx(share)
        match = RankedMatch(1, "a.jpg", 0.5, 5.0, None, None, calibration.probability(same), id=0)
        assert CalibratedLikelihood(calibration.right_share).ratios([match]) == pytest.approx(1.0, abs=1e-2)


def test_an_index_outgrows_its_calibration():
    calibration = fitted(drawn(60, seed=6))
    assert [calibration.is_outgrown(images) for images in (7, 28, 29)] == [False, False, True]


def test_what_cannot_be_fitted_is_explained():
    examples = drawn(50, seed=5)
    with pytest.raises(BadInputError, match="none of the 1 best matches"):
        fitted([next(one for one in examples if not one.right)])
    with pytest.raises(BadInputError, match="unknown place"):
        fitted([one for one in examples if one.place_known])
    with pytest.raises(BadInputError, match="0 < prior < 1"):
        Assumptions(25.0, prior=1.0)


def test_the_logistic_function_takes_any_number():
    assert [logistic(z) for z in (-1e9, 0.0, 1e9)] == [0.0, 0.5, 1.0]
    assert logistic(1.3) == pytest.approx(1 / (1 + math.exp(-1.3)))
