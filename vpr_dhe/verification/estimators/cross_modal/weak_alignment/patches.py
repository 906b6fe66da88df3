"""Oriented square patches: their frames, warping by a homography, and sampling."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Size

SIDE = 16
"""Samples along each side of a patch."""
_HALF_DIAGONAL = SIDE / 2 * 2**0.5


class PatchFrames(NamedTuple):
    """Oriented squares on an image: centres (x, y), and the step from one sample to the next along a row, in pixels.

    The direction of a step is the orientation of the patch, its length the scale.
    """

    centres: Float[Tensor, "patches 2"]
    steps: Float[Tensor, "patches 2"]

    def chosen(self, which: Tensor) -> "PatchFrames":
        """Select patches by numbers or by a mask."""
        return PatchFrames(self.centres[which], self.steps[which])

    def widths_px(self) -> Float[Tensor, " patches"]:
        """Sides of the squares."""
        return SIDE * torch.linalg.vector_norm(self.steps, dim=-1)

    def inside(self, size: Size) -> Bool[Tensor, " patches"]:
        """Mask of patches that lie inside an image at any orientation."""
        reach = (torch.linalg.vector_norm(self.steps, dim=-1) * _HALF_DIAGONAL)[:, None]
        limits = torch.tensor([size.width - 0.5, size.height - 0.5]).to(self.centres)
        return ((self.centres - reach >= -0.5) & (self.centres + reach <= limits)).all(dim=-1)


def warp_frames(frames: PatchFrames, homography: Float[Tensor, "3 3"]) -> PatchFrames:
    """Warp patches by a homography; differentiable in it.

    The new step is a finite difference: the image of the step at the centre of a patch.
    """
    ends = project(homography, torch.cat([frames.centres, frames.centres + frames.steps]))
    centres, tips = ends.chunk(2)
    return PatchFrames(centres, tips - centres)


def sample_patches(
    image: Float[Tensor, "channels height width"], frames: PatchFrames
) -> Float[Tensor, "patches channels 16 16"]:
    """Sample an image bilinearly, differentiable in the frames; beyond the border, the border's pixels repeat."""
    offsets = torch.arange(SIDE, dtype=image.dtype, device=image.device) - (SIDE - 1) / 2
    along, across = frames.steps[:, None, None], _turned(frames.steps)[:, None, None]
    points = frames.centres[:, None, None] + offsets[None, :, None] * along + offsets[:, None, None] * across
    size = torch.tensor([image.shape[2], image.shape[1]]).to(image)
    # At NaN points, the backward pass of torch 2.15 reads beyond the image on CPUs and ends the process.
    normalised = ((2 * points + 1) / size - 1).nan_to_num().clamp(-2, 2).flatten(0, 1)[None]
    sampled = grid_sample(image[None], normalised, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0].unflatten(1, (-1, SIDE)).transpose(0, 1)


def _turned(steps: Float[Tensor, "patches 2"]) -> Float[Tensor, "patches 2"]:
    """Steps turned by a quarter from x towards y: from one row to the next."""
    return torch.stack([-steps[:, 1], steps[:, 0]], dim=-1)
