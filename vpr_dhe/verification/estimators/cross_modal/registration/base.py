"""What a registration network is: from two images of one size to where the corners of the first lie in the second."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.records import Size


class RegistrationNetwork(nn.Module, ABC):
    """Says how far each corner of A moves on its way to B.

    `size` is that of both images. Displacements (x, y) are in pixels, of the corners in the order of
    `coordinates.corners`.
    """

    size: Size

    @abstractmethod
    def forward(
        self, a: Float[Tensor, "pairs 3 height width"], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements, again and again; the last is the best. Images are RGB in [0, 1]."""


def homographies_of(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Float64[Tensor, "*pairs 3 3"]:
    """The homographies, from A to B, that move the corners so."""
    square = corners(size).to(displacements.device)
    return four_point_homography(square.expand_as(displacements), square + displacements)


def inverse_homographies_of(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Float64[Tensor, "*pairs 3 3"]:
    """The homographies from B to A, by which A is brought into the frame of B; they have a gradient as well."""
    square = corners(size).to(displacements.device)
    return four_point_homography(square + displacements, square.expand_as(displacements))


def is_a_view(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Bool[Tensor, "*pairs"]:
    """Whether the moved corners form a convex quadrilateral of the same orientation, as those of every view do."""
    moved = corners(size).to(displacements.device) + displacements
    edges = moved.roll(-1, dims=-2) - moved
    following = edges.roll(-1, dims=-2)
    return (edges[..., 0] * following[..., 1] - edges[..., 1] * following[..., 0] > 0).all(dim=-1)


def believable(displacements: Float[Tensor, "*pairs 4 2"], size: Size) -> Float[Tensor, "*pairs 4 2"]:
    """The displacements, or none, without a gradient, where the moved corners are of no view.

    Left out before a homography is made of them: masked afterwards, its infinities would turn all gradients into NaN.
    """
    return torch.where(is_a_view(displacements, size)[..., None, None], displacements, 0.0)
