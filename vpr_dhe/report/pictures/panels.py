"""Pictures of one aligned pair: an overlay, or panels for a dense alignment."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from vpr_dhe.evaluation.alignment_metrics import flow_of_alignment
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import DenseAlignment, Image, Size, Verification
from vpr_dhe.report.pictures.drawing import draw_overlay

_GAP_PX = 12
_MIN_PANEL_WIDTH_PX = 320
_TITLE_PX = 34
# Brightness of pixels that are not matchable.
_DARKEST = 0.15
_MIN_MATCHABLE = 0.05


def draw_alignment(query: Image, candidate: Image, verification: Verification) -> Image:
    """Draw a verified pair as one overlay, or as four panels if its estimator found a dense flow.

    The panels are in the query's frame. Three blend the candidate over the query: unaligned, by the first homography,
    and by the flow. The last one shows the query, darkened where it is not matchable.

    Raises:
        ValueError: if there is no homography.
    """
    if verification.homography is None:
        raise ValueError("there is no homography to draw an alignment by")
    dense = verification.details.alignment if verification.details else None
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
    return _tiled([titled(panel, title) for title, panel in panels.items()])


def _under(
    candidate: Image, homography: Float64[np.ndarray, "3 3"], size: Size
) -> tuple[Image, Bool[np.ndarray, "height width"]]:
    """Warp the candidate into the query's frame by a homography from query to candidate; also return its mask."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(candidate, homography, size, flags=flags)
    covered = cv2.warpPerspective(np.ones(candidate.shape[:2], np.uint8), homography, size, flags=flags)
    return warped, covered > 0


def _along(candidate: Image, dense: DenseAlignment, size: Size) -> tuple[Image, Bool[np.ndarray, "height width"]]:
    """Warp the candidate into the query's frame by a flow; also return the mask of matchable pixels."""
    flow = flow_of_alignment(dense, size).float().numpy()
    columns, rows = (np.arange(side, dtype=np.float32) for side in size)
    warped = cv2.remap(candidate, flow[..., 0] + columns, flow[..., 1] + rows[:, None], cv2.INTER_LINEAR)
    return warped, cv2.resize(dense.matchability, size, interpolation=cv2.INTER_LINEAR) > _MIN_MATCHABLE


def _blended(below: Image, above: Image, shown: Bool[np.ndarray, "height width"]) -> Image:
    return np.where(shown[..., None], cv2.addWeighted(below, 0.5, above, 0.5, 0), below).astype(np.uint8, copy=False)


def titled(panel: Image, title: str, *, letter_height: float = 0.8) -> Image:
    """Add a title to a panel, enlarged so that the title is legible; `letter_height` is a font scale of OpenCV."""
    scale = max(1.0, _MIN_PANEL_WIDTH_PX / panel.shape[1])
    panel = cv2.resize(panel, None, fx=scale, fy=scale).astype(np.uint8, copy=False)
    panel[:_TITLE_PX] //= 3
    cv2.putText(panel, title, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, letter_height, (255, 255, 255), 1, cv2.LINE_AA)
    return panel


def _tiled(panels: Sequence[Image]) -> Image:
    """Four panels of one size, tiled two by two."""
    height, width = panels[0].shape[:2]
    canvas = np.full((2 * height + _GAP_PX, 2 * width + _GAP_PX, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        top, left = (number // 2) * (height + _GAP_PX), (number % 2) * (width + _GAP_PX)
        canvas[top : top + height, left : left + width] = panel
    return canvas
