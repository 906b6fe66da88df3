"""Pictures of verified matches, for eyes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.alignment_metrics import flow_of_alignment
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.images import image_size
from vpr_dhe.records import DenseAlignment, Image, Size, Verification

_INLIER_COLOUR, _OUTLINE_COLOUR = (80, 220, 100), (255, 170, 40)
_GAP_PX = 12
_MIN_WIDTH_PX = 640
_MAX_LINES = 60
_SUBPIXEL_BITS = 4
_MIN_PANEL_WIDTH_PX = 320
# Of what is not matchable, something is still to be seen.
_DARKEST = 0.15
_LEAST_MATCHABLE = 0.05


def draw_match(query: Image, candidate: Image, verification: Verification) -> Image:
    """Draw query and candidate side by side, inliers joined, the query's outline projected into the candidate.

    Small images are enlarged, and of many inliers every n-th is drawn, so that there is something to see.
    """
    left, right = image_size(query), image_size(candidate)
    scale = max(1.0, _MIN_WIDTH_PX / min(left.width, right.width))
    query, candidate = (cv2.resize(image, None, fx=scale, fy=scale) for image in (query, candidate))
    left, right = image_size(query), image_size(candidate)
    canvas = np.full((max(left.height, right.height), left.width + _GAP_PX + right.width, 3), 255, np.uint8)
    right_half = canvas[: right.height, left.width + _GAP_PX :]
    canvas[: left.height, : left.width], right_half[...] = query, candidate
    if verification.homography is not None:
        zoom = np.diag([scale, scale, 1.0])
        _polygon(right_half, _outline(zoom @ verification.homography @ np.linalg.inv(zoom), left))
    shift = np.array([left.width + _GAP_PX, 0.0])
    shown = slice(None, None, 1 + verification.inliers // _MAX_LINES)
    starts, ends = scale * verification.query_points[shown], scale * verification.candidate_points[shown] + shift
    for start, end in zip(starts, ends, strict=True):
        cv2.line(canvas, _fixed(start), _fixed(end), _INLIER_COLOUR, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
        for point in (start, end):
            cv2.circle(canvas, _fixed(point), 2 << _SUBPIXEL_BITS, _INLIER_COLOUR, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def draw_overlay(query: Image, candidate: Image, homography: Float64[np.ndarray, "3 3"]) -> Image:
    """Lay the query, warped by the homography, half transparent over the candidate, in the candidate's frame."""
    size = image_size(candidate)
    warped = cv2.warpPerspective(query, homography, size)
    covered = cv2.warpPerspective(np.ones(query.shape[:2], np.uint8), homography, size, flags=cv2.INTER_NEAREST)
    blended = cv2.addWeighted(warped, 0.5, candidate, 0.5, 0)
    canvas = np.where(covered[..., None] > 0, blended, candidate)
    _polygon(canvas, _outline(homography, image_size(query)))
    return canvas


def draw_alignment(query: Image, candidate: Image, verification: Verification) -> Image:
    """Draw a verified pair as one overlay, or in four panels where its estimator found a dense flow.

    The panels show the candidate half transparent over the query, in the query's frame: as it is, by the first
    homography, and by the flow; and at last the query where it is matchable, darkened where it is not.

    Raises:
        ValueError: if there is no homography.
    """
    if verification.homography is None:
        raise ValueError("there is no homography to draw an alignment by")
    dense = verification.evidence.alignment if verification.evidence else None
    if dense is None:
        return draw_overlay(query, candidate, verification.homography)
    size = image_size(query)
    coarse, covered = _under(candidate, dense.homographies[0], size)
    fine, reached = _along(candidate, dense, size)
    mask = cv2.resize(dense.matchability, size, interpolation=cv2.INTER_LINEAR)[..., None]
    panels = {
        "before": _blended(query, cv2.resize(candidate, size), np.ones(query.shape[:2], bool)),
        "coarse": _blended(query, coarse, covered),
        "fine": _blended(query, fine, reached),
        "matchable": np.rint(query * (_DARKEST + (1 - _DARKEST) * mask)).astype(np.uint8),
    }
    return _tiled([_titled(panel, title) for title, panel in panels.items()])


def _under(
    candidate: Image, homography: Float64[np.ndarray, "3 3"], size: Size
) -> tuple[Image, Bool[np.ndarray, "height width"]]:
    """The candidate as a homography from query to candidate lays it under the query, and where it is."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(candidate, homography, size, flags=flags)
    covered = cv2.warpPerspective(np.ones(candidate.shape[:2], np.uint8), homography, size, flags=flags)
    return warped, covered > 0


def _along(candidate: Image, dense: DenseAlignment, size: Size) -> tuple[Image, Bool[np.ndarray, "height width"]]:
    """The candidate as a flow lays it under the query, and where that is matchable at all."""
    flow = flow_of_alignment(dense, size).float().numpy()
    columns, rows = (np.arange(side, dtype=np.float32) for side in size)
    warped = cv2.remap(candidate, flow[..., 0] + columns, flow[..., 1] + rows[:, None], cv2.INTER_LINEAR)
    return warped, cv2.resize(dense.matchability, size, interpolation=cv2.INTER_LINEAR) > _LEAST_MATCHABLE


def _blended(below: Image, above: Image, shown: Bool[np.ndarray, "height width"]) -> Image:
    return np.where(shown[..., None], cv2.addWeighted(below, 0.5, above, 0.5, 0), below).astype(np.uint8, copy=False)


def _titled(panel: Image, title: str) -> Image:
    """A panel enlarged to a width at which its title can be read."""
    scale = max(1.0, _MIN_PANEL_WIDTH_PX / panel.shape[1])
    panel = cv2.resize(panel, None, fx=scale, fy=scale).astype(np.uint8, copy=False)
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(panel, title, (10, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, thickness, cv2.LINE_AA)
    return panel


def _tiled(panels: Sequence[Image]) -> Image:
    """Four panels of one size, two by two."""
    height, width = panels[0].shape[:2]
    canvas = np.full((2 * height + _GAP_PX, 2 * width + _GAP_PX, 3), 255, np.uint8)
    for place, panel in enumerate(panels):
        top, left = (place // 2) * (height + _GAP_PX), (place % 2) * (width + _GAP_PX)
        canvas[top : top + height, left : left + width] = panel
    return canvas


def write_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format of its name.

    Raises:
        BadInputError: if the folder is missing or the format unknown.
    """
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise BadInputError(f"cannot write {path}: unknown picture format {path.suffix!r}; use .png or .jpg") from error
    if not written:
        raise BadInputError(f"cannot write {path}; does its folder exist, and may you write there?")


def _outline(homography: Float64[np.ndarray, "3 3"], size: Size) -> Float64[np.ndarray, "4 2"]:
    return project(torch.from_numpy(homography), corners(size)).numpy()


def _polygon(canvas: Image, points: Float64[np.ndarray, "4 2"]) -> None:
    # Corners beyond the horizon lie farther away than OpenCV's integers reach.
    near = np.clip(points, -1e5, 1e5)
    fixed = np.rint(near * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(canvas, [fixed], True, _OUTLINE_COLOUR, 2, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed(point: Float64[np.ndarray, "2"]) -> tuple[int, int]:
    x, y = np.rint(point * (1 << _SUBPIXEL_BITS)).astype(int).tolist()
    return x, y
