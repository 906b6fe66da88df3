"""Coarse stage of RANSAC-Flow: matches of the query at seven scales with the candidate at one.

Source: Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV 2020, section 3.1. There, the network sees
the image resized to each scale. Extractors here have one input size, so larger scales are tiles of the image, and
smaller ones the image surrounded by its reflection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.geometry.coordinates import UNIT, cell_centres, resizing
from vpr_dhe.geometry.homography import area_ratio, is_usable, project, reprojection_errors
from vpr_dhe.geometry.matching import mutual_nearest_neighbours
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Features, Image, Size
from vpr_dhe.verification.estimators.base import MIN_MATCHES
from vpr_dhe.verification.estimators.poselib import PoseLibEstimator

SCALES = (0.5, 0.6, 0.88, 1.0, 1.33, 1.66, 2.0)
# In `UNIT`, whose sides are as long as the [-1, 1] of the source.
TOLERANCE = 0.05
# At the centre of the query.
_MIN_AREA_RATIO, _CENTRE = 1e-6, torch.tensor([0.5, 0.5], dtype=torch.float64)


@dataclass(frozen=True)
class Cells:
    """Cells of an image at one or more scales: centres in `UNIT`, unit-norm descriptors."""

    centres: Float64[Tensor, "cells 2"]
    descriptors: Float[Tensor, "cells dimension"]


class CoarseMatches(NamedTuple):
    """Mutual nearest neighbours; both points in `UNIT`."""

    query: Float64[Tensor, "matches 2"]
    candidate: Float64[Tensor, "matches 2"]

    def only(self, chosen: Bool[Tensor, " matches"]) -> "CoarseMatches":
        """Select matches by a mask."""
        return CoarseMatches(self.query[chosen], self.candidate[chosen])


class CoarseFit(NamedTuple):
    """A homography between `UNIT` frames and the mask of its inliers."""

    homography: Float64[Tensor, "3 3"]
    inliers: Bool[Tensor, " matches"]


class _Part(NamedTuple):
    """A rectangle in pixels of an image, which may extend beyond it; bounded by edges of pixels, not centres."""

    left: float
    top: float
    width: float
    height: float


def extract_scales(image: Image, extractor: Extractor, scales: Sequence[float] = SCALES) -> Cells:
    """Extract the cells of an image at several scales, relative to the scale at which the whole image is the input."""
    size = image_size(image)
    parts = [part for scale in scales for part in _parts(size, scale)]
    extracted = extractor.extract([_cut(image, part) for part in parts])
    cells = [_inside(_placed(features, part, size)) for features, part in zip(extracted, parts, strict=True)]
    return Cells(torch.cat([one.centres for one in cells]), torch.cat([one.descriptors for one in cells]))


def cells_of(features: Features) -> Cells:
    """Cells of indexed features, which have one scale."""
    centres = project(resizing(features.frame.input_size, UNIT), cell_centres(features.grid, features.frame.input_size))
    return Cells(centres, features.local_map)


def match_cells(query: Cells, candidates: Sequence[Cells]) -> Iterator[CoarseMatches]:
    """Match the cells of a query with those of each candidate."""
    for candidate in candidates:
        descriptors = candidate.descriptors.to(query.descriptors)
        found = mutual_nearest_neighbours(query.descriptors, descriptors[None])
        mutual, index = found.mutual[0].cpu(), found.index[0].cpu()
        yield CoarseMatches(query.centres[mutual], candidate.centres[index[mutual]])


def fit(matches: CoarseMatches, tolerance: float = TOLERANCE) -> CoarseFit | None:
    """Fit a homography by PoseLib's LO-RANSAC; None if it fails, or mirrors or collapses the image.

    The default tolerance, in `UNIT`, is that of the source; `benchmarks/fine_flow.py` compares LO-RANSAC with the
    RANSAC there.
    """
    if len(matches.query) < MIN_MATCHES:
        return None
    found = PoseLibEstimator().fit(matches.query.numpy(), matches.candidate.numpy(), tolerance)
    if found is None:
        return None
    homography = torch.from_numpy(found / found[2, 2])
    if not bool(is_usable(homography)) or not _MIN_AREA_RATIO < float(area_ratio(homography, _CENTRE)) < inf:
        return None
    inliers = reprojection_errors(homography, matches.query, matches.candidate) < tolerance
    return CoarseFit(homography, inliers) if int(inliers.sum()) >= MIN_MATCHES else None


def _parts(size: Size, scale: float) -> Iterator[_Part]:
    """Inputs of the extractor at a scale: tiles that overlap evenly, or one rectangle larger than the image."""
    width, height = size.width / scale, size.height / scale
    if scale <= 1:
        yield _Part((size.width - width) / 2, (size.height - height) / 2, width, height)
        return
    steps = ceil(scale)
    for row in range(steps):
        for column in range(steps):
            left, top = (column * (size.width - width) / (steps - 1), row * (size.height - height) / (steps - 1))
            yield _Part(left, top, width, height)


def _cut(image: Image, part: _Part) -> Image:
    """Crop a part, at the resolution of the image if the part is smaller, otherwise at the size of the image."""
    size = image_size(image)
    scale = min(1.0, size.width / part.width)
    target = Size(max(1, round(part.width * scale)), max(1, round(part.height * scale)))
    to_target = np.array(
        [
            [target.width / part.width, 0, (0.5 - part.left) * target.width / part.width - 0.5],
            [0, target.height / part.height, (0.5 - part.top) * target.height / part.height - 0.5],
        ]
    )
    shrunk = cv2.GaussianBlur(image, (0, 0), 0.5 / scale) if scale < 1 else image
    cut = cv2.warpAffine(shrunk, to_target, target, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return cut.astype(np.uint8, copy=False)


def _placed(features: Features, part: _Part, size: Size) -> Cells:
    """Convert the cells of a part to `UNIT` of the whole image."""
    cells = cells_of(features)
    scale = torch.tensor([part.width / size.width, part.height / size.height], dtype=torch.float64)
    start = torch.tensor([part.left / size.width, part.top / size.height], dtype=torch.float64) * 2
    return Cells((cells.centres + 0.5) * scale + start - 0.5, cells.descriptors)


def _inside(cells: Cells) -> Cells:
    """Keep the cells whose centres lie in the image."""
    inside = ((cells.centres > -0.5) & (cells.centres < 1.5)).all(dim=1)
    return Cells(cells.centres[inside], cells.descriptors[inside.to(cells.descriptors.device)])
