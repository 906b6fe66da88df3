"""What the network on matches learns from, against plain loops, and that a limit changes nothing that is small."""

import math

import numpy as np
import pytest
import torch

from vpr_dhe.datasets.augmentation import random_homography
from vpr_dhe.geometry.coordinates import UNIT, resizing
from vpr_dhe.geometry.homography import reprojection_errors
from vpr_dhe.records import Frame, Matches, Size
from vpr_dhe.training.dhe_lite.batches import mirrored
from vpr_dhe.training.dhe_lite.match_confidence import (
    REFERENCE,
    balanced_cross_entropy,
    clearly_labelled,
    in_reference,
    saturating_fit_error,
    saturating_rei,
    tolerances_off,
)
from vpr_dhe.training.dhe_lite.matched_pairs import (
    Kind,
    different_partners,
    magsac_between_units,
    with_fitted_homographies,
)
from vpr_dhe.training.rei import inlier_matches, reprojection_errors_of_inliers
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.dhe_lite import batch_matches


def no_image():
    raise AssertionError("matches are all there is")


def found(size, seed, right=30, wrong=20):
    """Matches between inputs of a size, and the homography that the first of them follow to within 3 px."""
    random = np.random.default_rng(seed)
    homography = torch.from_numpy(random_homography(size, random))
    query = torch.from_numpy(random.uniform(0, 1, (right + wrong, 2)) * (np.array(size) - 1))
    candidate = torch.from_numpy(random.uniform(0, 1, (right + wrong, 2)) * (np.array(size) - 1))
    near = reprojected(homography, query)[:right] + torch.from_numpy(random.normal(0, 3, (right, 2)))
    candidate[:right] = near
    return Matches(query, candidate, torch.ones(right + wrong), tolerance_px=24.0), homography


def reprojected(homography, points):
    mapped = torch.cat([points, torch.ones_like(points[:, :1])], dim=1) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def batch_of(matches, size):
    frame = Frame(size, size)
    return batch_matches(View(frame, no_image), [View(frame, no_image, matches=lambda one=one: one) for one in matches])


def between_units(homography, size):
    return (resizing(size, UNIT) @ homography @ resizing(UNIT, size))[None]


@pytest.mark.parametrize("size", [Size(384, 384), Size(256, 256), Size(320, 192)])
def test_tolerances_are_those_of_the_input_whatever_its_size(size):
    matches, homography = found(size, seed=0)
    batch = batch_of([matches], size)
    expected = reprojection_errors(homography, matches.query_points, matches.candidate_points) / 24
    off = tolerances_off(between_units(homography, size), batch)
    torch.testing.assert_close(off[0], expected, rtol=1e-6, atol=1e-6)
    sure = sum(error < 20 / 24 or error > 32 / 24 for error in expected.tolist())
    assert int(clearly_labelled(off, batch.present).sum()) == sure
    # A mirror changes nothing.
    points = torch.cat([batch.query[0], batch.candidate[0], batch.similarity[0, :, None]], dim=1).float()
    flipped, homography = mirrored(points, between_units(homography, size)[0])
    other = batch._replace(query=flipped[None, :, :2].double(), candidate=flipped[None, :, 2:4].double())
    torch.testing.assert_close(tolerances_off(homography[None], other), off, rtol=1e-3, atol=1e-3)


def test_cross_entropy_is_that_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 9, generator=generator)
    right, counted = (torch.rand(3, 9, generator=generator) < share for share in (0.3, 0.7))
    right[1] = False
    expected = []
    for row in range(3):
        sides = {True: [], False: []}
        rows = (values[row].tolist() for values in (logits, right, counted))
        for logit, is_right, counts in zip(*rows, strict=True):
            if counts:
                sides[is_right].append(math.log1p(math.exp(-logit if is_right else logit)))
        expected.append(sum(np.mean(side) for side in sides.values() if side))
    np.testing.assert_allclose(balanced_cross_entropy(logits, right, counted), expected, rtol=1e-5)


def test_a_true_fit_costs_nothing_and_a_hopeless_one_not_more_than_the_limit():
    matches, homography = found(REFERENCE, seed=1)
    batch, truth = batch_of([matches], REFERENCE), between_units(homography, REFERENCE)
    right = tolerances_off(truth, batch) < 1
    none = saturating_fit_error([truth], truth, batch.query, right)
    assert none.item() < 1e-9
    # Up to scale, of either sign.
    assert saturating_fit_error([-2 * truth], truth, batch.query, right).item() < 1e-9
    moved = truth.clone()
    moved[:, 0, 2] += 1e9
    moved.requires_grad_()
    far = saturating_fit_error([moved], truth, batch.query, right)
    assert 129 < far.item() < 131
    far.sum().backward()
    assert torch.isfinite(moved.grad).all()


def test_rei_saturates_towards_that_of_the_other_stages():
    matches, homography = found(REFERENCE, seed=2)
    batch, truth = batch_of([matches], REFERENCE), between_units(homography, REFERENCE)
    fitted = magsac_between_units([matches], REFERENCE).matrices
    kept = tolerances_off(fitted, batch) < 1
    counted = inlier_matches([matches], REFERENCE)
    assert int(kept.sum()) == int(counted.inliers)
    expected = float(reprojection_errors_of_inliers(in_reference(truth), counted))
    assert 0.9 * expected < saturating_rei([truth], batch, kept).item() < expected
    limited = float(reprojection_errors_of_inliers(in_reference(truth), counted, limit_px=1e9))
    assert limited == pytest.approx(expected, rel=1e-6)


def test_pairs_without_agreement_are_left_out():
    agreeing, few = found(REFERENCE, seed=3)[0], found(REFERENCE, seed=4, right=0, wrong=9)[0]
    pairs = with_fitted_homographies([few, agreeing, few], REFERENCE, min_inliers=16)
    assert pairs.kinds.tolist() == [Kind.fitted]
    assert pairs.counts.tolist() == [50]


def test_partners_show_something_else():
    assert list(different_partners([frozenset(place) for place in "abcd"], 1.0, 0)) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert list(different_partners([frozenset(place) for place in "aab"], 1.0, 0)) == [(0, 2), (1, 2), (2, 0)]
    assert list(different_partners([frozenset(place) for place in "aaa"], 1.0, 0)) == []
    halves = [len(list(different_partners([frozenset(place) for place in "abcd"], 0.5, first))) for first in range(4)]
    assert halves == [2, 2, 2, 2]
    assert list(different_partners([frozenset(place) for place in "abc"], 2.0, 0))[:2] == [(0, 1), (0, 2)]
