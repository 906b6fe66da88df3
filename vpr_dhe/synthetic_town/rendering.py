"""Rendering of surfaces: the texture of each visible piece is warped once by its plane-to-image homography."""

import math

import cv2
import numpy as np

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.appearance import Appearance
from vpr_dhe.synthetic_town.arrays import Matrix
from vpr_dhe.synthetic_town.surfaces import Facade
from vpr_dhe.synthetic_town.textures import Textures
from vpr_dhe.synthetic_town.visibility import View

_HAZE_GREY = 205


def paint_surfaces(view: View, image: Image, textures: Textures, appearance: Appearance) -> None:
    """Draw everything but sky and occluders onto a supersampled image."""
    for piece, (box, mask) in view.visible.items():
        facade = view.facade(piece)
        pixel_to_plane = view.pixel_to_plane(facade) @ np.array([[1, 0, box.left], [0, 1, box.top], [0, 0, 1]])
        middle = ((box.width - 1) / 2, (box.height - 1) / 2)
        texture, to_texture = _fit(textures, facade, pixel_to_plane, middle)
        patch = cv2.warpPerspective(
            texture,
            to_texture @ pixel_to_plane,
            (box.width, box.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        shade = 1 + appearance.sun_strength * (max(float(facade.normal @ appearance.sun_direction), 0.0) - 0.4)
        depth_m = view.depth_m(facade, box.left + box.width / 2, box.top + box.height / 2)
        clear = math.exp(-appearance.haze_per_m * depth_m)
        lit = cv2.convertScaleAbs(patch, alpha=shade * clear, beta=_HAZE_GREY * (1 - clear))
        cv2.copyTo(lit, mask, image[box.window])


def _fit(
    textures: Textures, facade: Facade, pixel_to_plane: Matrix, middle: tuple[float, float]
) -> tuple[Image, Matrix]:
    """Choose the resolution at which a pixel in the middle spans about one texel.

    Returns the texture, and the map from the plane's metres to texels. Width and height are halved separately, because
    a slanted view is compressed in one direction only.
    """
    (a, b, c), (d, e, f), (g, h, i) = pixel_to_plane.tolist()
    x, y = middle
    scale = g * x + h * y + i
    across, along = (a * x + b * y + c) / scale, (d * x + e * y + f) / scale
    slopes = math.hypot(a - across * g, b - across * h), math.hypot(d - along * g, e - along * h)
    full_height, full_width = textures.get(facade).shape[:2]
    halvings = []
    for slope, size_m, full in zip(slopes, (facade.width_m, facade.height_m), (full_width, full_height), strict=True):
        texels = max(slope / abs(scale) * full / size_m, 1.0)
        halvings.append(min(math.floor(math.log2(texels) + 0.4), full.bit_length() - 2))
    texture = textures.get(facade, *halvings)
    x_per_m, y_per_m = texture.shape[1] / facade.width_m, texture.shape[0] / facade.height_m
    return texture, np.array([[x_per_m, 0, -0.5], [0, -y_per_m, texture.shape[0] - 0.5], [0, 0, 1]])
