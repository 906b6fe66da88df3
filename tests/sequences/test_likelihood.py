"""What candidates say, against distributions whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.robust_scores import contrasts
from vpr_dhe.records import NOT_VERIFIED, RankedMatch, Verification
from vpr_dhe.sequences.likelihood import NO_EVIDENCE, CalibratedLikelihood, ContrastLikelihood, _bayes_factors


def match(inliers: int | None, similarity: float = 0.5, probability: float | None = None) -> RankedMatch:
    points = np.zeros((inliers or 0, 2))
    verification = None if inliers is None else Verification(None, float(inliers), points, points)
    return RankedMatch(1, "a.jpg", similarity, similarity, verification, None, probability, id=0)


def test_a_factor_is_the_mixture_that_it_is_said_to_be():
    tails = np.array([1e-9, 1e-3, 0.2, 0.9])
    mixtures = [quad(lambda k, p=p: k * p ** (k - 1), 0, 1)[0] for p in tails.tolist()]
    np.testing.assert_allclose(_bayes_factors(tails), mixtures, rtol=1e-6)
    np.testing.assert_allclose(_bayes_factors(np.array([1.0])), NO_EVIDENCE, atol=1e-3)


def test_wrong_candidates_say_nothing_on_average():
    rng = np.random.default_rng(0)
    ratios = np.concatenate(
        [ContrastLikelihood().ratios([match(int(n)) for n in rng.poisson(12, 40)]) for _ in range(50)]
    )
    assert 0.7 < ratios.mean() < 1.3


def test_wrong_candidates_of_a_coarse_pass_are_compared_with_their_own_spread():
    rng, ratios = np.random.default_rng(0), list[float]()
    for _ in range(50):
        # Four times the deviation of Poisson counts, because some wrong candidates share things with the frame.
        inliers = np.sort(rng.negative_binomial(4, 1 / 15, 20))[::-1]
        verified = [match(int(count)) for count in inliers[:16]]
        skipped = [replace(match(0), verification=NOT_VERIFIED) for _ in inliers[16:]]
        found = ContrastLikelihood().ratios([*verified, *skipped])
        assert np.ptp(found[16:]) == 0
        ratios += found[:16].tolist()
    assert 0.95 < np.mean(ratios) < 1.4


def test_what_stands_out_speaks_for_its_place():
    ratios = ContrastLikelihood().ratios([match(n) for n in (90, 30, 12, 11, 10, 9, 9, 8, 8, 7)])
    assert ratios[0] > 50 > ratios[1] > 3 > ratios[2]
    assert (np.diff(ratios) <= 0).all()
    equal = ContrastLikelihood().ratios([match(7)] * 5)
    assert np.ptp(equal) == 0
    assert ContrastLikelihood().ratios([match(50), match(2)]).tolist() == [1.0, 1.0]


def test_without_a_verifier_similarities_stand_out():
    found = contrasts([match(None, similarity) for similarity in (0.9, 0.5, 0.52, 0.48, 0.5)])
    assert found.argmax() == 0
    assert found[0] > 5


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_ratios_are_positive_and_finite(inliers):
    ratios = ContrastLikelihood().ratios([match(n) for n in inliers])
    assert np.isfinite(ratios).all()
    assert (ratios > 0).all()


@settings(max_examples=30)
@given(prior=st.floats(0.05, 0.95), ratio=st.floats(0.01, 100))
def test_a_calibrated_probability_gives_back_its_ratio(prior, ratio):
    odds = ratio * prior / (1 - prior)
    matches = [match(9, probability=odds / (1 + odds)), match(8), match(7)]
    ratios = CalibratedLikelihood(prior).ratios(matches)
    np.testing.assert_allclose(ratios[0], ratio, rtol=1e-6)
    np.testing.assert_allclose(ratios[1:], ContrastLikelihood().ratios(matches)[1:])


def test_a_prior_is_a_share():
    with pytest.raises(BadInputError, match="between 0 and 1"):
        CalibratedLikelihood(1.0)
