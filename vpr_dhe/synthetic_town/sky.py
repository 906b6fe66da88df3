"""Rendering of the sky: a vertical gradient under a flat layer of clouds."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.canvas import smooth_noise
from vpr_dhe.synthetic_town.visibility import View

_LAYER_PX = 256
_CLOUD_HEIGHT_PX = 45.0


def paint_sky(view: View, sky_seed: int) -> Image:
    """Draw the sky of a view, with clouds at infinity; at a quarter of the size, because it is smooth."""
    width, height = (max(size // 4, 1) for size in view.size)
    to_fine = np.array([[view.size[0] / width, 0, 1.5], [0, view.size[1] / height, 1.5], [0, 0, 1]])
    rays = view.camera.rotation.T @ np.linalg.inv(view.intrinsics) @ to_fine
    middle = rays @ np.stack([np.full(height, (width - 1) / 2), np.arange(height), np.ones(height)])
    climb = np.clip(middle[2] / np.linalg.norm(middle, axis=0), 0, 1)[:, None]
    blue = (1 - (1 - climb) ** 1.5)[:, :, None]
    gradient = np.array([214, 222, 228]) * (1 - blue) + np.array([88, 132, 190]) * blue
    # The zenith is in the middle of the cloud layer, so that its mirrored edges are near the horizon.
    to_layer = np.array([[_CLOUD_HEIGHT_PX, 0, _LAYER_PX / 2], [0, _CLOUD_HEIGHT_PX, _LAYER_PX / 2], [0, 0, 1]])
    clouds = cv2.warpPerspective(
        _clouds(sky_seed),
        to_layer @ rays,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    # Clouds fade into haze towards the horizon, where they would be compressed to noise.
    opacity = (clouds * np.clip(climb / 0.3, 0, 1) / 255)[:, :, None]
    sky = gradient + opacity * (238 - gradient)
    return cv2.resize(sky.astype(np.uint8), view.size, interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=8)
def _clouds(sky_seed: int) -> UInt8[np.ndarray, "rows columns"]:
    """Opacity of the cloud layer, 0 (clear) to 235."""
    rng = np.random.default_rng([7, sky_seed])
    layers = [smooth_noise(_LAYER_PX, _LAYER_PX, _LAYER_PX / 2**octave, rng) / 1.7**octave for octave in range(2, 8)]
    density = np.sum(layers, axis=0)
    density = (density - density.mean()) / density.std()
    return np.clip((density + rng.uniform(-0.8, 1.1)) * 110, 0, 235).astype(np.uint8)
