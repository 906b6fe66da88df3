"""Batches of patch pairs with known homography, one of them deformed.

The patch of A is the content of the displaced corners of the central square of its image; that of B is the central
square. Displacements are thus uniformly distributed, and each pixel of both patches lies inside its image.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798), section 3; AltO (Song et al.,
NeurIPS 2024) and SSHNet (arXiv:2409.17993) for 128 px patches of images of 192 px.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vpr_dhe.geometry.warping import warp
from vpr_dhe.records import Image, Size
from vpr_dhe.training.sources.base import Draws
from vpr_dhe.training.stage import Batches, Turn
from vpr_dhe.verification.estimators.cross_modal.registration.base import homographies_of


class PatchBatch(NamedTuple):
    """Aligned images, their patches, and the displacements of the corners of A's patch in B's.

    All images are RGB in [0, 1]; displacements are in pixels of the patches.
    """

    images_a: Float[Tensor, "pairs 3 image_height image_width"]
    images_b: Float[Tensor, "pairs 3 image_height image_width"]
    patches_a: Float[Tensor, "pairs 3 height width"]
    patches_b: Float[Tensor, "pairs 3 height width"]
    displacements: Float[Tensor, "pairs 4 2"]


def image_side_px(side_px: int) -> int:
    """Side of the images that patches are cropped from, with a margin for the largest displacement."""
    return side_px + 2 * largest_displacement_px(side_px)


def largest_displacement_px(side_px: int) -> int:
    """Largest displacement along each axis: a quarter of the patch, 32 pixels of 128."""
    return side_px // 4


def deformed_patches(
    photos: Float[Tensor, "pairs 3 image_height image_width"], displacements: Float[Tensor, "pairs 4 2"]
) -> Float[Tensor, "pairs 3 height width"]:
    """Warp the displaced central squares of the images to patches."""
    side_px = photos.shape[-1] * 2 // 3
    size, margin_px = Size(side_px, side_px), largest_displacement_px(side_px)
    to_photo = torch.eye(3, dtype=torch.float64, device=photos.device)
    to_photo[:2, 2] = margin_px
    return warp(photos, to_photo @ homographies_of(displacements, size), size, beyond="border")


def middle_patches(photos: Float[Tensor, "pairs 3 image_height image_width"]) -> Float[Tensor, "pairs 3 height width"]:
    """Central squares of the images."""
    side_px = photos.shape[-1] * 2 // 3
    margin_px = largest_displacement_px(side_px)
    return photos[..., margin_px : margin_px + side_px, margin_px : margin_px + side_px]


def random_displacements(pairs: int, side_px: int, device: torch.device) -> Float[Tensor, "pairs 4 2"]:
    """Uniformly distributed displacements, from torch's global generator."""
    return (2 * torch.rand(pairs, 4, 2, device=device) - 1) * largest_displacement_px(side_px)


class PatchBatches(Batches[PatchBatch]):
    """Batches of a source of aligned images, deformed differently each time."""

    def __init__(self, draws: Draws, side_px: int, batch_size: int) -> None:
        self._draws, self._side_px, self._batch_size = draws, side_px, batch_size

    def batch(self, turn: Turn) -> PatchBatch:
        """Load the pairs of a turn and deform them."""
        first = (turn.step * turn.processes + turn.process) * self._batch_size
        return self.of(range(first, first + self._batch_size))

    def of(self, numbers: range) -> PatchBatch:
        """Load pairs by number and deform them."""
        pairs = [self._draws.pair(number) for number in numbers]
        images_a, images_b = _stacked([pair.image_a for pair in pairs]), _stacked([pair.image_b for pair in pairs])
        displacements = torch.from_numpy(np.stack([self._displacements(number) for number in numbers])).float()
        patches_a = deformed_patches(images_a, displacements)
        return PatchBatch(images_a, images_b, patches_a, middle_patches(images_b).contiguous(), displacements)

    def _displacements(self, number: int) -> Float64[np.ndarray, "4 2"]:
        limit_px = largest_displacement_px(self._side_px)
        return np.random.default_rng((self._draws.seed, 2, number)).uniform(-limit_px, limit_px, (4, 2))


def _stacked(images: list[Image]) -> Float[Tensor, "images 3 height width"]:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
