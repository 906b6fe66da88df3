"""Parametrisation of a homography by eight dimensionless numbers, all 0 for the identity."""

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from vpr_dhe.geometry.coordinates import resizing
from vpr_dhe.geometry.homography import normalise, project
from vpr_dhe.records import Frame, Size


class HomographyParameters(nn.Module):
    """Parameters p of H = I + scale [[p0, p1, p2], [p3, p4, p5], [p6, p7, 0]], between the unit frames of A and B.

    A unit frame has its origin in the middle of the image and the longer side as its unit, so parameters mean the same
    at every resolution; p = 0 maps the middle of A to the middle of B. `scale` sets the speed of learning relative to
    the network's.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.values = nn.Parameter(torch.zeros(8, dtype=torch.float64))

    def between_units(self) -> Float64[Tensor, "3 3"]:
        """Homography between unit frames."""
        entries = torch.cat([self.scale * self.values, self.values.new_zeros(1)])
        return torch.eye(3, dtype=torch.float64, device=entries.device) + entries.view(3, 3)

    @torch.no_grad()
    def start_at(self, homography: Float64[Tensor, "3 3"], a: Size, b: Size) -> None:
        """Set the parameters to a homography between the original pixels of A and B."""
        units = normalise(_to_unit(Frame(b, b)) @ homography @ torch.linalg.inv(_to_unit(Frame(a, a))))
        self.values.copy_((units - torch.eye(3, dtype=torch.float64)).flatten()[:8] / self.scale)

    @torch.no_grad()
    def reduce_to_translation(self, max_deviation: float) -> None:
        """Keep only the mean translation of A's unit square, unless a corner deviates from it by more than a limit."""
        moves = self._moves()
        translation = moves.mean(dim=0)
        if float(torch.linalg.vector_norm(moves - translation, dim=-1).max()) <= max_deviation:
            self.values.zero_()
            self.values[[2, 5]] = translation / self.scale

    @torch.no_grad()
    def largest_move(self) -> float:
        """Largest distance by which a corner of A's unit square moves; very large beyond the horizon."""
        return float(torch.linalg.vector_norm(self._moves(), dim=-1).max())

    def _moves(self) -> Float64[Tensor, "4 2"]:
        square = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]).to(self.values)
        return project(self.between_units(), square) - square

    def between_inputs(self, a: Frame, b: Frame) -> Float64[Tensor, "3 3"]:
        """Homography between the input pixels of A and B."""
        after = torch.linalg.inv(_to_unit(b)).to(self.values.device)
        return normalise(after @ self.between_units() @ _to_unit(a).to(self.values.device))

    def between_originals(self, a: Size, b: Size) -> Float64[Tensor, "3 3"]:
        """Homography between the original pixels of A and B."""
        return self.between_inputs(Frame(a, a), Frame(b, b))


def _to_unit(frame: Frame) -> Float64[Tensor, "3 3"]:
    """Matrix from the input pixels of an image to its unit frame."""
    width, height = frame.image_size
    side = max(width, height)
    from_original = torch.tensor(
        [[1 / side, 0.0, -(width - 1) / 2 / side], [0.0, 1 / side, -(height - 1) / 2 / side], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )
    return from_original @ resizing(frame.input_size, frame.image_size)
