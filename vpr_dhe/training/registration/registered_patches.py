"""Patches aligned by an estimate, for losses without labels."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from vpr_dhe.geometry.warping import lands_inside, warp
from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.cross_modal.registration.base import believable, inverse_homographies_of


class Registered(NamedTuple):
    """A warped into the frame of B, and the mask of the pixels of B that it covers."""

    patches: Float[Tensor, "pairs 3 height width"]
    shown: Bool[Tensor, "pairs height width"]


def bring_to_b(
    patches_a: Float[Tensor, "pairs 3 height width"], estimate: Float[Tensor, "pairs 4 2"], size: Size
) -> Registered:
    """Warp A by a plausible estimate; gradients flow to both, but not through the mask."""
    back = inverse_homographies_of(believable(estimate, size), size)
    return Registered(warp(patches_a, back, size, beyond="border"), lands_inside(back.detach(), size, size))
