"""Warping of images by homographies as batched, differentiable tensor operations."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import grid_sample

from vpr_dhe.geometry.homography import project, same_side_of_horizon
from vpr_dhe.records import Size


def pixel_centres(size: Size) -> Float64[Tensor, "pixels 2"]:
    """Coordinates (x, y) of all pixels of an image, row-major."""
    x = torch.arange(size.width, dtype=torch.float64)
    y = torch.arange(size.height, dtype=torch.float64)
    return torch.stack([x.repeat(size.height), y.repeat_interleave(size.width)], dim=1)


def warp(
    images: Float[Tensor, "batch channels height width"],
    homographies: Float64[Tensor, "batch 3 3"],
    size: Size,
    beyond: Literal["zeros", "border", "reflection"] = "zeros",
) -> Float[Tensor, "batch channels warped_height warped_width"]:
    """Warp images: pixel x of the result is sampled bilinearly at H * x in the image.

    Differentiable in images and homographies. `beyond` is the padding outside an image: zeros, its border pixels, or
    its reflection.
    """
    source = project(homographies, pixel_centres(size).to(images.device))
    return sample(images, source.view(-1, size.height, size.width, 2), beyond)


def sample(
    images: Float[Tensor, "batch channels height width"],
    places: Float[Tensor, "batch rows columns 2"],
    beyond: Literal["zeros", "border", "reflection"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Sample images bilinearly at places (x, y) in pixels; `beyond` as for `warp`."""
    height, width = images.shape[-2:]
    sides = torch.tensor([width, height], dtype=places.dtype, device=images.device)
    # Coordinates of grid_sample run from -1 to 1 between the outer edges of the outermost pixels.
    grid = (2 * places + 1) / sides - 1
    return grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode=beyond, align_corners=False)


def lands_inside(
    homographies: Float64[Tensor, "batch 3 3"], size: Size, target: Size
) -> Bool[Tensor, "batch height width"]:
    """Mask of pixels x of an image of `size` for which H * x is inside an image of size `target`.

    Pixels beyond the horizon, relative to the centre of the image, count as outside.
    """
    points = pixel_centres(size).to(homographies.device)
    mapped = project(homographies, points)
    limits = torch.tensor([target.width - 1.0, target.height - 1.0], dtype=torch.float64, device=mapped.device)
    near = same_side_of_horizon(homographies, points, points.mean(dim=0))
    return (((mapped >= 0) & (mapped <= limits)).all(dim=-1) & near).view(-1, size.height, size.width)
