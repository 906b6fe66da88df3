"""Conversion between pixels of original and resized images, used by the whole package.

The centre of the top-left pixel is (0, 0), x runs right and y down, so resizing an image of width w to w' moves x to
(x + 1/2) w' / w - 1/2.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from vpr_dhe.geometry.homography import normalise, project
from vpr_dhe.records import Frame, Grid, Size

UNIT = Size(2, 2)
"""Size of a unit frame, independent of the image's size and grid, with a side of two units."""


def cell_centres(grid: Grid, input_size: Size) -> Float64[Tensor, "cells 2"]:
    """Centres (x, y), in input pixels, of the cells of a grid that partitions the input evenly, row-major."""
    x = (torch.arange(grid.columns, dtype=torch.float64) + 0.5) * (input_size.width / grid.columns) - 0.5
    y = (torch.arange(grid.rows, dtype=torch.float64) + 0.5) * (input_size.height / grid.rows) - 0.5
    return torch.stack([x.repeat(grid.rows), y.repeat_interleave(grid.columns)], dim=1)


def corners(size: Size) -> Float64[Tensor, "4 2"]:
    """Centres of the four corner pixels: top left, top right, bottom right, bottom left."""
    right, bottom = size.width - 1.0, size.height - 1.0
    return torch.tensor([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]], dtype=torch.float64)


@lru_cache(maxsize=1024)
def resizing(source: Size, target: Size) -> Float64[Tensor, "3 3"]:
    """Homography of pixels when an image of size `source` is resized to `target`.

    The result is cached and shared: do not write to it.
    """
    scale_x, scale_y = target.width / source.width, target.height / source.height
    with torch.inference_mode(mode=False):  # training may use tensors cached in inference
        return torch.tensor(
            [[scale_x, 0.0, (scale_x - 1) / 2], [0.0, scale_y, (scale_y - 1) / 2], [0.0, 0.0, 1.0]], dtype=torch.float64
        )


def to_originals(
    points: Float64[Tensor, "points 2"], frames: Sequence[Frame], of: Int64[Tensor, " points"]
) -> Float64[Tensor, "points 2"]:
    """Convert points of input frames to the original images; `of` is the index of each point's frame."""
    resizings = torch.stack([resizing(frame.input_size, frame.image_size) for frame in frames])
    return project(resizings[of], points[:, None])[:, 0]


def homographies_between_originals(
    input_homographies: Float64[Tensor, "candidates 3 3"], query: Frame, candidates: Sequence[Frame]
) -> Float64[Tensor, "candidates 3 3"]:
    """Convert homographies between the input frames of a query and its candidates to the original images."""
    before = resizing(query.image_size, query.input_size)
    return _chained([resizing(frame.input_size, frame.image_size) for frame in candidates], input_homographies, before)


def homographies_between_inputs(
    image_homographies: Float64[Tensor, "candidates 3 3"], query: Frame, candidates: Sequence[Frame]
) -> Float64[Tensor, "candidates 3 3"]:
    """Convert homographies between original images to the input frames; inverse of `homographies_between_originals`."""
    before = resizing(query.input_size, query.image_size)
    return _chained([resizing(frame.image_size, frame.input_size) for frame in candidates], image_homographies, before)


def _chained(
    after: Sequence[Float64[Tensor, "3 3"]],
    homographies: Float64[Tensor, "candidates 3 3"],
    before: Float64[Tensor, "3 3"],
) -> Float64[Tensor, "candidates 3 3"]:
    device = homographies.device
    return normalise(torch.stack(list(after)).to(device) @ homographies @ before.to(device))
