"""Losses of networks that estimate iteratively."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_sequence(losses: Sequence[Float[Tensor, ""]], decay: float) -> Float[Tensor, ""]:
    """Weighted sum of the losses of k estimates: the i-th (from 0) has the weight decay^(k - i - 1).

    Source: Teed and Deng, "RAFT", ECCV 2020, equation 7.
    """
    last = len(losses) - 1
    return torch.stack([decay ** (last - i) * loss for i, loss in enumerate(losses)]).sum()


def displacement_loss(
    estimates: Sequence[Float[Tensor, "pairs 4 2"]], truth: Float[Tensor, "pairs 4 2"], decay: float
) -> Float[Tensor, ""]:
    """Mean absolute error of corner displacements along x and y, in pixels, of each estimate.

    Source: Cao et al., "Iterative Deep Homography Estimation", CVPR 2022.
    """
    return weighted_sequence([(estimate - truth).abs().mean() for estimate in estimates], decay)
