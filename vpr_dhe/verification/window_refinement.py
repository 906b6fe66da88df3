"""Refinement of an alignment of reduced images, from windows of the originals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from vpr_dhe.features.keypoints import (
    MAX_KEYPOINTS,
    TOLERANCE_PX,
    Keypoints,
    detect_and_extract,
    match_rectified,
)
from vpr_dhe.geometry.coordinates import corners, resizing
from vpr_dhe.geometry.homography import project, reprojection_errors, same_side_of_horizon
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.parts import Part
from vpr_dhe.records import Frame, Image, Matches, Size, Verification
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.verifier import Verifier
from vpr_dhe.verification.working_copy import Picture

Homography = Float64[np.ndarray, "3 3"]
Points = Float64[Tensor, "points 2"]

_MAX_WINDOWS = 9
_WINDOW_PX = 512
# A window may show a wide part of the query, if the view is oblique.
_MAX_PART_PIXELS = 4 * _WINDOW_PX**2
_MIN_PART_PX = 16
# Radius of matches, in pixels of the working copy and then of the original.
_RADIUS_PX = 4.0
_MIN_INLIERS = 8
_MIN_KEPT = 0.8
# Together, windows have as many keypoints as an image.
_MAX_KEYPOINTS = MAX_KEYPOINTS // _MAX_WINDOWS


@dataclass(frozen=True)
class _Cut:
    """Pixels of a part of an image."""

    part: Part
    pixels: Image

    @property
    def to_image(self) -> Homography:
        """Homography from pixels of the part to pixels of the image."""
        shift = np.array([[1.0, 0.0, self.part.left], [0.0, 1.0, self.part.top], [0.0, 0.0, 1.0]])
        whole = Size(round(self.part.width), round(self.part.height))
        return shift @ resizing(self.part.size, whole).numpy()


@dataclass(frozen=True)
class _Window:
    """Part of the candidate with its keypoints, and the part of the query that it shows."""

    candidate: _Cut
    keypoints: Keypoints
    query: _Cut


def refined_in_windows(query: Picture, candidate: Picture, found: Verification, verifier: Verifier) -> Verification:
    """Refine an estimate between large images, made from working copies, by keypoints in windows of the originals.

    The windows lie around inliers, far apart. A round replaces the estimate only if it keeps half of its inliers in the
    windows, and most inliers of the working copies, so that an estimate that suits few windows cannot spoil a good one.
    """
    if found.homography is None or not found.inliers:
        return found
    shrinking = candidate.size.width / image_size(candidate.working).width
    windows = _cut_windows(query, candidate, found, found.homography, margin_px=_RADIUS_PX * shrinking)
    coarse = _matches(torch.from_numpy(found.query_points), torch.from_numpy(found.candidate_points))
    best, homography = found, found.homography
    for radius_px in (_RADIUS_PX * shrinking, _RADIUS_PX):
        matches = _match_windows(windows, homography, radius_px)
        refined = _verify(matches, query.size, candidate.size, verifier)
        expected = _count_near(homography, matches, TOLERANCE_PX * shrinking)
        if refined.homography is None or refined.inliers < max(_MIN_INLIERS, expected / 2):
            break
        if _count_near(refined.homography, coarse, TOLERANCE_PX * shrinking) < _MIN_KEPT * found.inliers:
            break
        best, homography = replace(refined, details=found.details), refined.homography
    return best


def _cut_windows(
    query: Picture, candidate: Picture, found: Verification, homography: Homography, margin_px: float
) -> list[_Window]:
    """Cut windows of the candidate around its inliers, spread widely, and what the query has of each.

    The parts of the query are larger than the windows by a margin, in pixels of the candidate.
    """
    parts = [_window_around(centre, candidate.size) for centre in _spread(found.candidate_points)]
    back = np.linalg.inv(homography)
    seen = [(part, other) for part in parts if (other := _part_of_query(part, back, query.size, margin_px)) is not None]
    cut_b = candidate.cut([part for part, _ in seen])
    cut_a = query.cut([part for _, part in seen])
    windows = []
    for (of_b, of_a), pixels_b, pixels_a in zip(seen, cut_b, cut_a, strict=True):
        keypoints = detect_and_extract(pixels_b, max_keypoints=_MAX_KEYPOINTS)
        windows.append(_Window(_Cut(of_b, pixels_b), keypoints, _Cut(of_a, pixels_a)))
    return windows


def _match_windows(windows: Sequence[_Window], homography: Homography, radius_px: float) -> Matches:
    """Match the keypoints of all windows within a radius of where a homography maps them; in pixels of the originals.

    See `match_rectified`.
    """
    found = [_match_one(window, homography, radius_px) for window in windows]
    nothing = torch.empty(0, 2, dtype=torch.float64)
    return _matches(
        torch.cat([nothing, *(query_points for query_points, _ in found)]),
        torch.cat([nothing, *(candidate_points for _, candidate_points in found)]),
    )


def _matches(query_points: Points, candidate_points: Points) -> Matches:
    return Matches(query_points, candidate_points, torch.ones(len(query_points)), TOLERANCE_PX)


def _match_one(window: _Window, homography: Homography, radius_px: float) -> tuple[Points, Points]:
    a_to_b = np.linalg.inv(window.candidate.to_image) @ homography @ window.query.to_image
    matches = match_rectified(
        window.query.pixels,
        window.candidate.pixels,
        window.keypoints,
        a_to_b,
        radius_px,
        max_keypoints=_MAX_KEYPOINTS,
    )
    return (
        project(torch.from_numpy(window.query.to_image), matches.query_points),
        project(torch.from_numpy(window.candidate.to_image), matches.candidate_points),
    )


def _verify(matches: Matches, query: Size, candidate: Size, verifier: Verifier) -> Verification:
    """Verify a pair by matches in pixels of the originals."""
    view = View.of_matches(Frame(candidate, candidate), matches)
    return verifier.verify(View(Frame(query, query)), [view])[0]


def _count_near(homography: Homography, matches: Matches, tolerance_px: float) -> int:
    errors_px = reprojection_errors(torch.tensor(homography), matches.query_points, matches.candidate_points)
    return int((errors_px < tolerance_px).sum())


def _spread(points: Float64[np.ndarray, "points 2"]) -> Float64[np.ndarray, "chosen 2"]:
    """Choose points far apart: each the farthest from those before, until windows around them would overlap."""
    chosen = [points[np.abs(points - points.mean(axis=0)).max(axis=1).argmax()]]
    while len(chosen) < _MAX_WINDOWS:
        apart = np.min([np.abs(points - one).max(axis=1) for one in chosen], axis=0)
        if apart.max() < _WINDOW_PX:
            break
        chosen.append(points[apart.argmax()])
    return np.array(chosen)


def _window_around(centre: Float64[np.ndarray, "2"], size: Size) -> Part:
    sides = [min(_WINDOW_PX, side) for side in size]
    left, top = (
        int(np.clip(round(place - side / 2), 0, whole - side))
        for place, side, whole in zip(centre, sides, size, strict=True)
    )
    return Part(left, top, *sides, size=Size(*sides))


def _part_of_query(window: Part, back: Homography, size: Size, margin_px: float) -> Part | None:
    """Part of the query that a window shows, reduced to the resolution of the candidate; None beyond the horizon."""
    matrix = torch.from_numpy(back)
    outline = corners(Size(round(window.width + 2 * margin_px), round(window.height + 2 * margin_px)))
    outline = outline + torch.tensor([window.left - margin_px, window.top - margin_px], dtype=torch.float64)
    if not bool(same_side_of_horizon(matrix, outline, outline.mean(dim=0)).all()):
        return None
    mapped = project(matrix, outline).numpy()
    left, top = np.floor(np.clip(mapped.min(axis=0), 0, size)).astype(int).tolist()
    right, bottom = np.ceil(np.clip(mapped.max(axis=0) + 1, 0, size)).astype(int).tolist()
    width, height = right - left, bottom - top
    if min(width, height) < _MIN_PART_PX:
        return None
    shrinking = max(1.0, (_area(mapped) / _area(outline.numpy())) ** 0.5, (width * height / _MAX_PART_PIXELS) ** 0.5)
    reduced = Size(max(1, round(width / shrinking)), max(1, round(height / shrinking)))
    return Part(left, top, width, height, reduced)


def _area(outline: Float64[np.ndarray, "4 2"]) -> float:
    (x, y), (u, v) = outline[2] - outline[0], outline[3] - outline[1]
    return abs(float(x * v - y * u)) / 2
