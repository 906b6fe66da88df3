"""Keypoints of an image as cameras at other angles would see it, for pairs whose viewpoints differ strongly.

SIFT tolerates changes of viewpoint of up to about 40 degrees. Squeezing an image along several directions simulates
cameras at larger angles, of which one resembles the camera of the other image.

Source: Morel and Yu, "ASIFT: a new framework for fully affine invariant image comparison", SIAM Journal on Imaging
Sciences 2009 (the views); Mishkin, Matas and Perdoch, "MODS: fast and robust method for two-view matching", CVIU 2015,
section 3 (the ratio to the first match that is geometrically inconsistent).
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from vpr_dhe.features.keypoints import TOLERANCE_PX, Keypoints, detect_and_extract
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image, Matches

TILTS = (1.0, 2.0, 4.0)
"""Factors by which views are squeezed: a camera at an angle of arccos(1 / tilt) from the vertical."""

RATIO = 0.9
# Directions of a tilt t are 72 / t degrees apart, and the blur before a squeeze is 0.8 sqrt(t^2 - 1) (ASIFT).
_STEP_DEGREES = 72.0
_BLUR = 0.8
_MAX_KEYPOINTS = 1000
_MIN_KEYPOINTS = 60
# Share by which views have more keypoints than their area would give them.
_MORE = 1.2
_BORDER_PX = 9
# Several views show the same keypoint at places that differ by little.
_SAME_PX = 10.0
_DUPLICATE_PX = 2.0
_NEIGHBOURS = 6
_ROWS = 1000


class SimulatedView(NamedTuple):
    """A view, the mask of what the image covers (None is all), and the homography from pixels of the image."""

    pixels: Image
    mask: UInt8[np.ndarray, "height width"] | None
    from_image: Float64[np.ndarray, "3 3"]


def simulate_views(image: Image) -> Iterator[SimulatedView]:
    """Simulate the image itself, and views at each of `TILTS` in evenly spaced directions."""
    for tilt in TILTS:
        directions = 1 if tilt == 1 else round(180 / (_STEP_DEGREES / tilt))
        for number in range(directions):
            yield simulate_view(image, tilt, 180.0 * number / directions)


def simulate_view(image: Image, tilt: float, degrees: float) -> SimulatedView:
    """Rotate an image by an angle, and squeeze it along x by `tilt`."""
    if tilt == 1 and degrees == 0:
        return SimulatedView(image, None, np.eye(3))
    width, height = image_size(image)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    outline = turn[:2, :2] @ np.array([[0, width - 1, width - 1, 0], [0, 0, height - 1, height - 1]])
    turn[:2, 2] = -outline.min(axis=1)
    columns, rows = (int(side) + 1 for side in np.ceil(np.ptp(outline, axis=1)))
    turned = cv2.warpPerspective(image, turn, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
    blur = _BLUR * np.sqrt(tilt**2 - 1)
    blurred = cv2.GaussianBlur(turned, (0, 0), sigmaX=blur, sigmaY=0.01) if blur else turned
    squeeze = np.array([[1 / tilt, 0, 0.5 / tilt - 0.5], [0, 1, 0], [0, 0, 1]])
    size = (max(1, round(columns / tilt)), rows)
    from_image = squeeze @ turn
    covered = cv2.warpPerspective(np.full((height, width), 255, np.uint8), from_image, size, flags=cv2.INTER_NEAREST)
    # The border of the image is an edge, but not in the scene.
    inside = cv2.erode(covered, np.ones((_BORDER_PX, _BORDER_PX), np.uint8), borderValue=0)
    pixels = cv2.warpPerspective(blurred, squeeze, size)
    return SimulatedView(pixels.astype(np.uint8, copy=False), inside.astype(np.uint8, copy=False), from_image)


def detect_in_views(image: Image) -> Keypoints:
    """Detect keypoints in all simulated views; points in pixels of the image."""
    points, descriptors = [np.empty((0, 2))], [np.empty((0, 128), np.float32)]
    for view in simulate_views(image):
        share = abs(float(np.linalg.det(view.from_image)))
        wanted = round(_MAX_KEYPOINTS if share == 1 else _MORE * share * _MAX_KEYPOINTS + _MIN_KEYPOINTS)
        found = detect_and_extract(view.pixels, view.mask, max_keypoints=wanted)
        if len(found.points):
            points.append(cv2.perspectiveTransform(found.points[None], np.linalg.inv(view.from_image))[0])
            descriptors.append(found.descriptors)
    return Keypoints(np.concatenate(points), np.concatenate(descriptors))


def match_views(a: Keypoints, b: Keypoints) -> Matches:
    """Match nearest neighbours that are clearly nearer than the first one elsewhere in B, and whose own are near them.

    Of matches at the same place, which several views show, the clearest one remains.
    """
    if not len(a.points) or not len(b.points):
        no_points = torch.empty(0, 2, dtype=torch.float64)
        return Matches(no_points, no_points, torch.empty(0), TOLERANCE_PX)
    nearest, back, similarity, ratio = _neighbours(a, b)
    points_a, points_b = torch.from_numpy(a.points), torch.from_numpy(b.points)
    returns = (points_a[back[nearest]] - points_a).abs().amax(dim=1) < _SAME_PX
    chosen = (returns & (ratio < RATIO)).nonzero()[:, 0]
    chosen = chosen[ratio[chosen].argsort(stable=True)]
    places = torch.cat([points_a[chosen], points_b[nearest[chosen]]], dim=1)
    _, first = np.unique((places / _DUPLICATE_PX).round().long().numpy(), axis=0, return_index=True)
    chosen = chosen[torch.from_numpy(np.sort(first))]
    return Matches(points_a[chosen], points_b[nearest[chosen]], similarity[chosen], TOLERANCE_PX)


def _neighbours(a: Keypoints, b: Keypoints) -> tuple[Tensor, Tensor, Float32[Tensor, " a"], Float32[Tensor, " a"]]:
    """Nearest neighbours of A in B and of B in A, their similarity, and the ratio of distances to the next place."""
    of_a, of_b = torch.from_numpy(a.descriptors), torch.from_numpy(b.descriptors).T.contiguous()
    points = torch.from_numpy(b.points).float()
    best = torch.full((len(b.points),), -1.0)
    back = torch.zeros(len(b.points), dtype=torch.long)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(of_a), _ROWS):  # bounds the memory
        similarity = of_a[start : start + _ROWS] @ of_b
        value, index = similarity.topk(min(_NEIGHBOURS, len(points)), dim=1)
        elsewhere = (points[index] - points[index[:, :1]]).abs().amax(dim=-1) > _SAME_PX
        second = torch.where(elsewhere, value, -1.0).amax(dim=1)
        found.append((index[:, 0], value[:, 0], torch.where(second < 0, value[:, -1], second)))
        top, row = similarity.max(dim=0)
        better = top > best
        best[better], back[better] = top[better], row[better] + start
    nearest, value, second = (torch.cat(parts) for parts in zip(*found, strict=True))
    ratio = (2 - 2 * value).clamp(min=0).sqrt() / (2 - 2 * second).clamp(min=1e-6).sqrt()
    return nearest, back, value, ratio
