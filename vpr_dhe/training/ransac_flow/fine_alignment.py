"""Losses of RANSAC-Flow's fine network: reconstruction, cycle consistency and matchability.

Source: Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV 2020, equations 3 to 6. As in the paper, and
unlike its released code, the cycle distance is Euclidean, and matchability weights every term: a pixel is matchable if
the sum of its other terms is below the weight of matchability. With the paper's weight of 0.01, hardly any pixel is
matchable, so the default is higher.
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
"""Size of the SSIM window in pixels; its Gaussian has a standard deviation of 1.5."""
MATCHABILITY_WEIGHT, CYCLE_WEIGHT = 0.5, 1.0
_MIN_WEIGHT = 1e-6
# Temperature of the cosines of offsets.
_TEMPERATURE = 0.07
# Avoids the undefined gradient of a length at 0.
_MIN_LENGTH = 1e-6


class Phase(IntEnum):
    """Phases of training: known flows (not in the paper), then the terms of the paper, one more in each phase."""

    known_flow = 0
    reconstruction = 1
    cycle = 2
    matchability = 3


class FineLoss(NamedTuple):
    """Terms of the loss, unweighted."""

    reconstruction: Float[Tensor, ""]
    cycle: Float[Tensor, ""]
    matchability: Float[Tensor, ""]

    def total(self, phase: Phase, matchability_weight: float = MATCHABILITY_WEIGHT) -> Float[Tensor, ""]:
        """Weighted sum of the terms of a phase."""
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
    """Terms of the loss at the pixels of the target.

    Args:
        source: source images in [0, 1].
        target: target images in [0, 1].
        forward: output at the pixels of the target.
        backward: output at the pixels of the source.
        covered: 1 where the source has pixels, 0 where it is padded.
        phase: phase; before the last one, every pixel counts as matchable.
    """
    flow_px = forward.flow_px
    matchability = torch.ones_like(covered)
    if phase >= Phase.matchability:
        matchability = forward.matchability * warp(backward.matchability, flow_px)
    unlike = 1 - ssim(warp(source, flow_px), target, SSIM_WINDOW).mean(dim=1, keepdim=True)
    # In units of half a side, as the coordinates of the source.
    half_side = target.new_tensor([target.shape[3] / 2, target.shape[2] / 2]).view(1, 2, 1, 1)
    missed = (flow_px + warp(backward.flow_px, flow_px)) / half_side
    length = (missed.square().sum(dim=1, keepdim=True) + _MIN_LENGTH**2).sqrt()
    terms = (unlike * matchability, length * matchability, 1 - matchability)
    return FineLoss(*(_weighted_mean(term, covered) for term in terms))


def known_flow_loss(
    forward: Fine, flow_px: Float[Tensor, "pairs 2 height width"], counted: Float[Tensor, "pairs 1 height width"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the offset of each cell, for its correlation and for the network's logits.

    The target is distributed over the four offsets around the true one. Both terms are needed: with only the end-point
    error, or without the term of the correlation, training does not converge.
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
