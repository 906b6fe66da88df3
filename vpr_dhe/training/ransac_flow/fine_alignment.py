"""What the fine network of RANSAC-Flow learns from: one image, warped, looks like the other, and back again.

Source: Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV 2020, equations 3 to 6. As in the paper, and
unlike in its released code, the distance after a cycle is Euclidean, and matchability learns from every term: a pixel
is worth matching whose other terms together cost less than the weight of matchability. With the paper's weight of 0.01
hardly any is (1 % of the pixels after 50 steps), because SSIM, even of well aligned photos, rarely exceeds 0.9.
"""

from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Float
from kornia.metrics import ssim
from torch import Tensor
from torch.nn import functional

from vpr_dhe.verification.estimators.ransac_flow.network import OFFSETS_CELLS, STRIDE_PX, Fine, warp

SSIM_WINDOW = 11
"""Of pixels; the Gaussian in it has a deviation of 1.5."""
MATCHABILITY_WEIGHT, CYCLE_WEIGHT = 0.5, 1.0
_MIN_WEIGHT = 1e-6
# Of cosines, where they are to tell offsets from each other.
_TEMPERATURE = 0.07
# A length has no gradient at 0.
_SHORTEST = 1e-6


class Phase(IntEnum):
    """What is learned from: known flows, which the paper does without, then its terms, each phase adding one."""

    known_flow = 0
    reconstruction = 1
    cycle = 2
    matchability = 3


class FineLoss(NamedTuple):
    """The terms, before their weights."""

    reconstruction: Float[Tensor, ""]
    cycle: Float[Tensor, ""]
    matchability: Float[Tensor, ""]

    def total(self, phase: Phase, matchability_weight: float = MATCHABILITY_WEIGHT) -> Float[Tensor, ""]:
        """The sum of the terms of a phase."""
        loss = self.reconstruction
        if phase >= Phase.cycle:
            loss = loss + CYCLE_WEIGHT * self.cycle
        if phase >= Phase.matchability:
            loss = loss + matchability_weight * self.matchability
        return loss


def fine_alignment_loss(
    source: Float[Tensor, "pairs 3 height width"],
    target: Float[Tensor, "pairs 3 height width"],
    forward: Fine,
    backward: Fine,
    covered: Float[Tensor, "pairs 1 height width"],
    phase: Phase,
) -> FineLoss:
    """The terms at the pixels of the target.

    Args:
        source: in [0, 1].
        target: in [0, 1].
        forward: at the pixels of the target.
        backward: at the pixels of the source.
        covered: 1 where the source shows something and is not made up, else 0.
        phase: before the last one everything is taken to be matchable.
    """
    flow_px = forward.flow_px
    matchability = torch.ones_like(covered)
    if phase >= Phase.matchability:
        matchability = forward.matchability * warp(backward.matchability, flow_px)
    unlike = 1 - ssim(warp(source, flow_px), target, SSIM_WINDOW).mean(dim=1, keepdim=True)
    # In units of half a side, as the coordinates of the source are.
    half_side = target.new_tensor([target.shape[3] / 2, target.shape[2] / 2]).view(1, 2, 1, 1)
    missed = (flow_px + warp(backward.flow_px, flow_px)) / half_side
    length = (missed.square().sum(dim=1, keepdim=True) + _SHORTEST**2).sqrt()
    terms = (unlike * matchability, length * matchability, 1 - matchability)
    return FineLoss(*(_weighted_mean(term, covered) for term in terms))


def known_flow_loss(
    forward: Fine, flow_px: Float[Tensor, "pairs 2 height width"], counted: Float[Tensor, "pairs 1 height width"]
) -> Float[Tensor, ""]:
    """The cross-entropy of the offset of each cell, by its correlation and by the network's logits.

    It is shared among the four offsets that the true one lies between. From the end-point error alone, or without the
    correlation's own term, hundreds of steps learn nothing: the features get worse before the head makes use of them.
    """
    true_cells = functional.avg_pool2d(flow_px, STRIDE_PX).unsqueeze(1) / STRIDE_PX
    apart = (OFFSETS_CELLS.to(flow_px).view(1, -1, 2, 1, 1) - true_cells).abs()
    share = (1 - apart).clamp(min=0).prod(dim=2)
    weight = functional.avg_pool2d(counted, STRIDE_PX).floor()
    return torch.stack(
        [
            _weighted_mean(-(share * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True), weight)
            for logits in (forward.correlation.float() / _TEMPERATURE, forward.offset_logits)
        ]
    ).mean()


def _weighted_mean(
    values: Float[Tensor, "pairs 1 height width"], weight: Float[Tensor, "pairs 1 height width"]
) -> Float[Tensor, ""]:
    return (values * weight).sum() / weight.sum().clamp(min=_MIN_WEIGHT)
