"""The losses of the fine network: zero where all is right, and each term for what it is about."""

import math

import pytest
import torch

from vpr_dhe.training.ransac_flow.fine_alignment import Phase, fine_alignment_loss, known_flow_loss
from vpr_dhe.verification.estimators.ransac_flow.network import OFFSETS_CELLS, Fine

SIDE = 48
NO_OFFSETS = (torch.zeros(2, 49, 6, 6),) * 2


def smooth_images(seed=0):
    knots = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(knots, (SIDE, SIDE), mode="bicubic").clamp(0, 1)


def fine(x, y, matchability=1.0):
    flow = torch.tensor([x, y]).view(1, 2, 1, 1).expand(2, 2, SIDE, SIDE).clone()
    return Fine(flow, torch.full((2, 1, SIDE, SIDE), matchability), *NO_OFFSETS)


def inner():
    covered = torch.zeros(2, 1, SIDE, SIDE)
    covered[..., 12:-12, 12:-12] = 1
    return covered


def loss(source, target, forward, backward, phase=Phase.matchability):
    return fine_alignment_loss(source, target, forward, backward, inner(), phase)


def test_right_flows_cost_nothing():
    source = smooth_images()
    target = source.roll((-2, -3), dims=(2, 3))  # the target shows at x what the source shows at x + (3, 2)
    found = loss(source, target, fine(3.0, 2.0), fine(-3.0, -2.0))
    assert float(found.reconstruction) < 1e-4
    assert float(found.cycle) < 1e-4
    assert float(found.matchability) < 1e-6


def test_wrong_flows_are_unlike_and_do_not_come_back():
    source = smooth_images()
    target = source.roll((-2, -3), dims=(2, 3))
    found = loss(source, target, fine(0.0, 0.0), fine(-3.0, -2.0))
    assert float(found.reconstruction) > 0.05
    # Three and two pixels of half a side of 24.
    assert float(found.cycle) == pytest.approx((3**2 + 2**2) ** 0.5 / 24, rel=1e-4)


def test_phases_add_terms():
    source, target = smooth_images(0), smooth_images(1)
    found = loss(source, target, fine(1.0, 0.0, 0.5), fine(0.0, 0.0, 0.5))
    assert float(found.matchability) == pytest.approx(0.75, abs=1e-5)
    totals = [float(found.total(phase)) for phase in (Phase.reconstruction, Phase.cycle, Phase.matchability)]
    assert totals[1] - totals[0] == pytest.approx(float(found.cycle), rel=1e-4)
    assert totals[2] - totals[1] == pytest.approx(0.5 * float(found.matchability), rel=1e-3)
    assert float(found.total(Phase.matchability, 0.01)) - totals[1] == pytest.approx(0.0075, abs=1e-4)


def test_matchability_learns_where_images_do_not_agree():
    source = smooth_images()
    target = source.clone()
    target[..., :24] = smooth_images(1)[..., :24]
    forward, backward = fine(0.0, 0.0, 0.6), fine(0.0, 0.0, 0.6)
    forward.matchability.requires_grad_()
    loss(source, target, forward, backward).total(Phase.matchability).backward()
    gradient = forward.matchability.grad
    assert float(gradient[..., 14:-14, 14:20].mean()) > 0
    assert float(gradient[..., 14:-14, 28:34].mean()) < 0


def test_gradients_of_the_flow_agree_with_differences():
    source, target = smooth_images(0).double(), smooth_images(1).double()
    backward = Fine(fine(0.3, 0.2).flow_px.double(), fine(0.0, 0.0).matchability.double(), *NO_OFFSETS)
    covered = inner().double()

    def total(shift):
        flow = shift.view(1, 2, 1, 1).expand(2, 2, SIDE, SIDE)
        forward = Fine(flow, torch.ones(2, 1, SIDE, SIDE, dtype=torch.float64), *NO_OFFSETS)
        return fine_alignment_loss(source, target, forward, backward, covered, Phase.cycle).total(Phase.cycle)

    shift = torch.tensor([0.37, -0.41], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(shift), shift)
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = 1e-5
        expected = (total(shift.detach() + step) - total(shift.detach() - step)) / 2e-5
        assert float(gradient[axis]) == pytest.approx(float(expected), rel=1e-3, abs=1e-6)


def offsets(x_cells, y_cells, sure=50.0):
    """Logits and a correlation that are all for one offset."""
    place = int(((torch.tensor([float(x_cells), float(y_cells)]) == OFFSETS_CELLS).all(dim=1)).nonzero())
    scores = torch.zeros(2, 49, 6, 6)
    scores[:, place] = sure
    return fine(0.0, 0.0)._replace(correlation=scores, offset_logits=scores)


def test_known_flows_cost_nothing_where_all_is_for_the_right_offset():
    truth = fine(16.0, -8.0).flow_px
    assert float(known_flow_loss(offsets(2, -1), truth, inner())) < 1e-3
    assert float(known_flow_loss(offsets(1, -1), truth, inner())) > 10
    assert float(known_flow_loss(fine(0.0, 0.0), truth, inner())) == pytest.approx(math.log(49), rel=1e-4)
    assert float(known_flow_loss(offsets(1, -1), truth, torch.zeros(2, 1, SIDE, SIDE))) == 0


def test_a_known_flow_between_offsets_is_shared_among_them():
    truth = fine(4.0, 0.0).flow_px  # half a cell
    half = offsets(0, 0).offset_logits / 50 + offsets(1, 0).offset_logits / 50
    shared = fine(0.0, 0.0)._replace(correlation=1000 * half, offset_logits=1000 * half)
    assert float(known_flow_loss(shared, truth, inner())) == pytest.approx(math.log(2), rel=1e-3)
