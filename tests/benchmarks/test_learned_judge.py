"""The network that judges matches: before any training it ranks by evidence, and it sees what its design shows it."""

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


def shortlists(seed: int) -> judge_network.Shortlists:
    """Two queries with four candidates of random matches, of which one or two are right."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.rand(2, 4, 16, 8, generator=generator)
    there = torch.ones(2, 4, 16, dtype=torch.bool)
    right = torch.tensor([[True, False, False, False], [False, True, True, False]])
    similarity = torch.rand(2, 4, generator=generator)
    return judge_network.Shortlists(
        "two", ("a.jpg", "b.jpg"), tokens, there, there.sum(dim=2).float(), similarity, right, torch.ones_like(right)
    )


@pytest.mark.parametrize(
    ("unseen", "columns"), [("positions", slice(4)), ("similarity", [4]), ("residuals", slice(5, 8))]
)
def test_a_judge_does_not_see_what_its_design_hides(unseen, columns):
    one = shortlists(0)
    tokens = one.tokens.clone()
    tokens[..., columns] = 2 * torch.rand(tokens[..., columns].shape)
    torch.manual_seed(0)
    for design, is_equal in ((judge_network.Design(unseen=unseen), True), (judge_network.Design(), False)):
        judge = judge_network.Judge(design)
        hidden = [judge.embed(judge._inputs(values.flatten(0, 1))) for values in (one.tokens, tokens)]
        assert torch.equal(*hidden) == is_equal


@pytest.mark.parametrize("loss", [learned_judge.listwise_loss, learned_judge.candidate_loss])
def test_losses_fall_where_right_candidates_score_higher(loss, monkeypatch):
    one, judge = shortlists(1), judge_network.Judge(judge_network.Design())
    for_right = 6 * one.right.float() - 3
    losses = []
    for scores in (for_right, 0 * for_right, -for_right):
        monkeypatch.setattr(judge, "forward", lambda _, scores=scores: scores)
        losses.append(loss(judge, one).mean().item())
    assert losses == sorted(losses)
    assert losses[0] < 0.2 < losses[1] < losses[2]
