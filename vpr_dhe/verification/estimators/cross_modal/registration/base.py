"""Interface of registration networks, which predict the displacements of the corners between images of one size."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.records import Size


class RegistrationNetwork(nn.Module, ABC):
    """Network that predicts the displacement of each corner from A to B.

    `size` is that of both images. Displacements (x, y) are in pixels, in the order of `coordinates.corners`.
    """

    size: Size

    @abstractmethod
    def forward(
        self, a: Float[Tensor, "pairs 3 height width"], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements; returns successive refinements, the best last. Images are RGB in [0, 1]."""


def homographies_of(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Float64[Tensor, "*pairs 3 3"]:
    """Homographies from A to B by the displacements of corners."""
    square = corners(size).to(displacements.device)
    return four_point_homography(square.expand_as(displacements), square + displacements)


def inverse_homographies_of(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Float64[Tensor, "*pairs 3 3"]:
    """Homographies from B to A, which warp A into the frame of B; differentiable."""
    square = corners(size).to(displacements.device)
    return four_point_homography(square + displacements, square.expand_as(displacements))


def is_a_view(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Bool[Tensor, "*pairs"]:
    """Mask of pairs whose moved corners form a convex quadrilateral of the same orientation, as in every real view."""
    moved = corners(size).to(displacements.device) + displacements
    edges = moved.roll(-1, dims=-2) - moved
    following = edges.roll(-1, dims=-2)
    return (edges[..., 0] * following[..., 1] - edges[..., 1] * following[..., 0] > 0).all(dim=-1)


def believable(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Float[Tensor, "*pairs 4 2"]:
    """Replace displacements that are not `is_a_view` by zeros, without a gradient.

    Apply it before computing homographies: masked afterwards, their infinities would turn all gradients into NaN.
    """
    return torch.where(is_a_view(displacements, size)[..., None, None], displacements, 0.0)


class InstanceNorm(nn.GroupNorm):
    """Normalisation of each channel of each map, as by `nn.InstanceNorm2d`, which copies its maps on a CPU."""

    def __init__(self, channels: int, *, affine: bool = False) -> None:
        super().__init__(channels, channels, affine=affine)

    def forward(
        self, input: Float[Tensor, "maps channels rows columns"]
    ) -> Float[Tensor, "maps channels rows columns"]:
        """Normalise; autocast computes this in float32, and the result has the type of the input."""
        return super().forward(input).to(input.dtype)
