"""Perspective views of equirectangular panoramas.

A view spans 60 degrees, with square pixels and an aspect ratio of 4:3; 12 views overlap their neighbours by half.
"""

import cv2
import numpy as np

from vpr_dhe.records import Image, Size

VIEW_DEG = 60

# Width of the panorama relative to the width and to the height of a view.
_WIDTHS, _HEIGHTS = 6, 8
# Tolerance for stitching programs, in pixels.
_MAX_DEVIATION = 0.01


def is_panorama(size: Size) -> bool:
    """Whether an image has the aspect ratio of an equirectangular panorama, 2:1."""
    return abs(size.width - 2 * size.height) <= _MAX_DEVIATION * size.width


def view_size(size: Size) -> Size:
    """Size of the views of a panorama, at about its resolution."""
    return Size(round(size.width / _WIDTHS), round(size.width / _HEIGHTS))


def size_for_views(min_size: Size) -> Size:
    """Size of a panorama whose views have at least a minimum size."""
    width = max(_WIDTHS * min_size.width, _HEIGHTS * min_size.height)
    return Size(width, width // 2)


def cut_view(panorama: Image, yaw_deg: int) -> Image:
    """Project a panorama to the image plane of a level camera with this viewing direction.

    Source: equirectangular projection of Google's Photo Sphere XMP (GPano), with its centre at `PoseHeadingDegrees`.
    """
    height, width = panorama.shape[:2]
    size = view_size(Size(width, height))
    focal = size.width / 2 / np.tan(np.radians(VIEW_DEG / 2))
    x = (np.arange(size.width) - (size.width - 1) / 2) / focal
    y = (np.arange(size.height)[:, None] - (size.height - 1) / 2) / focal
    columns = (np.degrees(np.arctan(x)) + yaw_deg + 180) / 360 * width - 0.5
    rows = (np.degrees(np.arctan2(y, np.hypot(1, x))) + 90) / 180 * height - 0.5
    # Only the needed columns, wrapped around if necessary, because OpenCV supports at most 32,767.
    first, last = int(np.floor(columns.min())), int(np.ceil(columns.max()))
    part = np.take(panorama, np.arange(first, last + 2) % width, axis=1)
    across = np.broadcast_to(columns - first, rows.shape)
    return cv2.remap(part, across.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
