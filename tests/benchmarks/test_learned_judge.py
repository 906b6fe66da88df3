"""The network that judges matches: before any training, it ranks by evidence."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.localization.ranking import weighted_inliers
from vpr_dhe.localization.robust_scores import CHANCE_QUANTILE, inlier_contrasts
from vpr_dhe.records import Verification

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import judge_network
import learned_judge


def verification(similarities: np.ndarray) -> Verification:
    points = np.zeros((len(similarities), 2))
    weight = float(np.square(similarities).mean()) if len(similarities) else 1.0
    return Verification(None, float(len(similarities)), points, points, inlier_weight=weight)


@pytest.mark.parametrize("verdict", [False, True])
@pytest.mark.parametrize("count", [5, 24])
def test_without_training_it_ranks_by_evidence(count, verdict):
    random, side = np.random.default_rng(count), (1, 24, learned_judge.MATCHES)
    tokens, there = np.zeros((*side, 8), np.float16), np.zeros(side, bool)
    verified, similarity = list[Verification](), np.zeros((1, 24), np.float32)
    for place in range(count):
        inliers = random.uniform(0.3, 1, random.integers(0, learned_judge.MATCHES // 2)).astype(np.float16)
        verified.append(verification(inliers.astype(float)))
        tokens[0, place, :, 5] = 9
        tokens[0, place, : len(inliers), 4], tokens[0, place, : len(inliers), 5] = inliers, 0.5
        there[0, place] = True
        similarity[0, place] = random.normal()
    present = np.arange(24)[None] < count
    numbers = np.array([[*(one.inliers for one in verified), *[0] * (24 - count)]], np.float32)
    columns = map(torch.from_numpy, (tokens, there, numbers, similarity, present.copy(), present))
    judge = judge_network.Judge(judge_network.Design(verdict)).eval()
    found = judge_network.scores_of(judge, judge_network.Shortlists("one", ("q.jpg",), *columns))[0]
    expected = inlier_contrasts(weighted_inliers(verified), CHANCE_QUANTILE) + similarity[0, :count]
    np.testing.assert_allclose(found[:count], expected, atol=1e-3)
    assert (found[count:] < -1e6).all()
