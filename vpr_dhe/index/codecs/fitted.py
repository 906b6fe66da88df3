"""Base of codecs that are fitted to the maps of an index.

Descriptors of one model share a large mean component, and matching compares the rest. An error along the mean shifts
all similarities of a cell and costs many matches, so the component along the mean, the gain, is coded separately, and
gives the norm of the rest, since descriptors have unit norm. This is gain-shape coding (Gersho and Gray, "Vector
Quantization and Signal Compression", 1992, chapter 12) about the mean.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.index.codecs.base import LocalMapCodec, is_empty

# Enough for a covariance of a few hundred dimensions, and done in a second.
_FIT_ROWS = 50_000
_SEED = 0
_MIN_REST = 1e-30


class FittedCodec(LocalMapCodec):
    """Codec of the gain and principal components of the rest, along orthonormal axes, the mean's first."""

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(cells, dimension, parameters)
        self._axes = self._tensor("axes")

    def project(self, rows: Float[Tensor, "rows dimension"]) -> Float[Tensor, "rows components"]:
        """Project descriptors to the axes."""
        return rows @ self._axes.to(rows.device)

    def decode(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells dimension"]:
        """Decode maps to the space of the original descriptors."""
        return self.components(records) @ self._axes.T


def rows_to_fit(local_maps: Float[Tensor, "maps cells dimension"]) -> Float[Tensor, "rows dimension"]:
    """Descriptors of all cells that are not empty, or a random sample of them."""
    places = torch.nonzero(~is_empty(local_maps).flatten()).flatten()
    if len(places) > _FIT_ROWS:
        chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(_SEED))[:_FIT_ROWS]
        places = places[chosen.to(places.device)]
    return local_maps.flatten(0, 1)[places].float().cpu()


def axes_about_the_mean(rows: Float[Tensor, "rows dimension"], count: int) -> Float[Tensor, "dimension count"]:
    """Orthonormal axes: the direction of the mean, then the principal axes orthogonal to it."""
    mean = rows.mean(0).double()
    direction = normalize(mean, dim=0)
    covariance = (rows.T @ rows).double() / len(rows) - torch.outer(mean, mean)
    beside = torch.eye(len(mean), dtype=torch.float64) - torch.outer(direction, direction)
    # A negative eigenvalue sorts the direction of the mean behind all others, even those without variance.
    within = beside @ covariance @ beside - torch.outer(direction, direction)
    principal = torch.linalg.eigh(within).eigenvectors.flip(1)[:, : count - 1]
    return torch.cat([direction[:, None], principal], dim=1).float()


def of_unit_norm(
    gain: Float[Tensor, "maps cells"], rest: Float[Tensor, "maps cells components"], empty: Bool[Tensor, "maps cells"]
) -> Float[Tensor, "maps cells 1+components"]:
    """Components of unit norm: the gain and the rest, scaled accordingly; empty cells are zero."""
    gain = gain.clamp(-1, 1)
    scale = (1 - gain.square()).sqrt() / torch.linalg.vector_norm(rest, dim=-1).clamp(min=_MIN_REST)
    components = torch.empty(*gain.shape, 1 + rest.shape[-1])
    components[..., 0] = gain.masked_fill(empty, 0)
    torch.mul(rest, scale.masked_fill(empty, 0)[..., None], out=components[..., 1:])
    return components
