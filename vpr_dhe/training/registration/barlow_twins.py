"""Barlow Twins loss: the cross-correlation of the channels of two views should be the identity.

Source: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021; AltO (Song et al.,
"Unsupervised Homography Estimation on Multimodal Image Pair via Alternating Optimization", NeurIPS 2024) for both uses.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vpr_dhe.training.devices import in_single_precision

REDUNDANCY_WEIGHT = 0.005
# Avoids a division by zero for constant channels.
_MIN_VARIANCE = 1e-5


def barlow_twins(
    a: Float[Tensor, "sets samples channels"],
    b: Float[Tensor, "sets samples channels"],
    counted: Bool[Tensor, "sets samples"] | None = None,
) -> Float[Tensor, " sets"]:
    """Distance of the cross-correlation of channels from the identity, for each set of samples.

    Channels are standardised over the N counted samples, C = A^T B / (N - 1), and the loss is the sum of (C_ii - 1)^2
    and of 0.005 C_ij^2. The loss of a set of fewer than two samples is 0.
    """
    weights = torch.ones_like(a[..., :1]) if counted is None else counted.unsqueeze(2).to(a)
    freedom = (weights.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    with in_single_precision():
        correlation = (_standardised(a, weights, freedom).mT @ _standardised(b, weights, freedom)) / freedom
    on_diagonal = correlation.diagonal(dim1=1, dim2=2)
    off_diagonal = correlation.square().sum(dim=(1, 2)) - on_diagonal.square().sum(dim=1)
    loss = (on_diagonal - 1).square().sum(dim=1) + REDUNDANCY_WEIGHT * off_diagonal
    return torch.where(weights.sum(dim=(1, 2)) < 2, 0.0, loss)


def _standardised(
    values: Float[Tensor, "sets samples channels"],
    weights: Float[Tensor, "sets samples 1"],
    freedom: Float[Tensor, "sets 1 1"],
) -> Float[Tensor, "sets samples channels"]:
    """Standardise values to mean 0 and variance 1 over the counted samples; others become 0."""
    mean = (values * weights).sum(dim=1, keepdim=True) / (freedom + 1)
    centred = (values - mean) * weights
    variance = centred.square().sum(dim=1, keepdim=True) / freedom
    return centred * (variance + _MIN_VARIANCE).rsqrt()
