"""Pictures of verified matches."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image, Size, Verification
from vpr_dhe.report.pictures.encoding import scaled

_INLIER_COLOUR, _OUTLINE_COLOUR = (80, 220, 100), (255, 170, 40)
_GAP_PX, _GAP_GREY = 12, 128
_SIDE_PX = 640
_MAX_LINES = 60
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class SideBySide:
    """Query and candidate side by side, with matches and outline in pixels of `picture`.

    Args:
        picture: both images.
        starts: inliers in the query.
        ends: the same inliers in the candidate.
        candidate_at: rows and columns of the candidate.
        outline: corners of the query in the candidate; None without a homography.
    """

    picture: Image
    starts: Float64[np.ndarray, "inliers 2"]
    ends: Float64[np.ndarray, "inliers 2"]
    candidate_at: tuple[slice, slice]
    outline: Float64[np.ndarray, "4 2"] | None


def side_by_side(query: Image, candidate: Image, verification: Verification, *, side_px: int = _SIDE_PX) -> SideBySide:
    """Put query and candidate side by side.

    Each image is scaled to `side_px` pixels on its longer side; many inliers are thinned out evenly.
    """
    left_zoom, right_zoom = (side_px / max(image_size(image)) for image in (query, candidate))
    query, candidate = scaled(query, left_zoom), scaled(candidate, right_zoom)
    left, right = image_size(query), image_size(candidate)
    canvas = np.full((max(left.height, right.height), left.width + _GAP_PX + right.width, 3), _GAP_GREY, np.uint8)
    canvas[: left.height, : left.width] = query
    candidate_at = slice(right.height), slice(left.width + _GAP_PX, None)
    canvas[candidate_at] = candidate
    shift = np.array([left.width + _GAP_PX, 0.0])
    outline = None
    if verification.homography is not None:
        to_query, to_candidate = np.diag([1 / left_zoom, 1 / left_zoom, 1.0]), np.diag([right_zoom, right_zoom, 1.0])
        outline = _outline(to_candidate @ verification.homography @ to_query, left) + shift
    shown = slice(None, None, 1 + verification.inliers // _MAX_LINES)
    starts = left_zoom * verification.query_points[shown]
    ends = right_zoom * verification.candidate_points[shown] + shift
    return SideBySide(canvas, starts, ends, candidate_at, outline)


def draw_match(query: Image, candidate: Image, verification: Verification, *, side_px: int = _SIDE_PX) -> Image:
    """Draw query and candidate side by side with their inliers and the query's outline in the candidate.

    Each image is scaled to `side_px` pixels on its longer side; many inliers are thinned out evenly.
    """
    found = side_by_side(query, candidate, verification, side_px=side_px)
    canvas = found.picture
    if found.outline is not None:
        _polygon(canvas[found.candidate_at], found.outline - [found.candidate_at[1].start, 0])
    for start, end in zip(found.starts, found.ends, strict=True):
        cv2.line(canvas, _fixed(start), _fixed(end), _INLIER_COLOUR, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
        for point in (start, end):
            cv2.circle(canvas, _fixed(point), 2 << _SUBPIXEL_BITS, _INLIER_COLOUR, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def draw_overlay(query: Image, candidate: Image, homography: Float64[np.ndarray, "3 3"]) -> Image:
    """Blend the query, warped by the homography, over the candidate, in the candidate's frame."""
    size = image_size(candidate)
    warped = cv2.warpPerspective(query, homography, size)
    covered = cv2.warpPerspective(np.ones(query.shape[:2], np.uint8), homography, size, flags=cv2.INTER_NEAREST)
    blended = cv2.addWeighted(warped, 0.5, candidate, 0.5, 0)
    canvas = np.where(covered[..., None] > 0, blended, candidate)
    _polygon(canvas, _outline(homography, image_size(query)))
    return canvas


def write_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format of its file name.

    Raises:
        BadInputError: if the folder is missing or the format unknown.
    """
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise BadInputError(f"cannot write {path}: unknown picture format {path.suffix!r}; use .png or .jpg") from error
    if not written:
        raise BadInputError(f"cannot write {path}; check that its folder exists and is writable")


def _outline(homography: Float64[np.ndarray, "3 3"], size: Size) -> Float64[np.ndarray, "4 2"]:
    return project(torch.from_numpy(homography), corners(size)).numpy()


def _polygon(canvas: Image, points: Float64[np.ndarray, "4 2"]) -> None:
    # Corners near the horizon exceed OpenCV's integer range.
    near = np.clip(points, -1e5, 1e5)
    fixed = np.rint(near * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(canvas, [fixed], True, _OUTLINE_COLOUR, 2, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed(point: Float64[np.ndarray, "2"]) -> tuple[int, int]:
    x, y = np.rint(point * (1 << _SUBPIXEL_BITS)).astype(int).tolist()
    return x, y
