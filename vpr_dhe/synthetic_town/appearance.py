"""Lighting, weather and sensor of a view."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.arrays import Vector


@dataclass(frozen=True)
class Appearance:
    """Light, sensor and occluders of a view; the default is neutral: no noise, no gradient, no occluders.

    `brightness` and `contrast` multiply (1 = unchanged), `gamma` > 1 darkens the middle tones,
    `shadow_strength` in [0, 1] darkens the image linearly towards `shadow_direction_deg` (0 = right, 90 = down),
    `noise_sigma` is in grey levels of 255, `haze_per_m` in 1/m, and `occluders_per_10_m` is the number of cars, people
    and trees per ten metres of street, placed at random by `occluder_seed`.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    colour_temperature_k: float = 6500.0
    sun_heading_deg: float = 205.0
    sun_strength: float = 0.35
    shadow_strength: float = 0.0
    shadow_direction_deg: float = 0.0
    haze_per_m: float = 0.0
    noise_sigma: float = 0.0
    noise_seed: int = 0
    sky_seed: int = 0
    occluders_per_10_m: float = 0.0
    occluder_seed: int = 0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Appearance":
        """Draw lighting, sky, sensor and occluders of another day at random."""
        return cls(
            brightness=rng.uniform(0.7, 1.25),
            contrast=rng.uniform(0.75, 1.2),
            gamma=rng.uniform(0.75, 1.35),
            colour_temperature_k=rng.uniform(4300, 9000),
            sun_heading_deg=rng.uniform(90, 270),
            sun_strength=rng.uniform(0.1, 0.6),
            shadow_strength=rng.uniform(0, 0.5),
            shadow_direction_deg=rng.uniform(0, 360),
            haze_per_m=rng.uniform(0, 0.004),
            noise_sigma=rng.uniform(0, 6),
            noise_seed=int(rng.integers(2**31)),
            sky_seed=int(rng.integers(2**31)),
            occluders_per_10_m=rng.uniform(0.4, 1.6),
            occluder_seed=int(rng.integers(2**31)),
        )

    @property
    def sun_direction(self) -> Vector:
        """Unit vector towards the sun."""
        heading = math.radians(self.sun_heading_deg)
        return np.array([0.75 * math.sin(heading), 0.75 * math.cos(heading), 0.66])


NEUTRAL = Appearance()


def apply_light(image: Image, appearance: Appearance) -> Image:
    """Apply tone curve and colour temperature, then the shadow gradient, then sensor noise."""
    levels = np.linspace(0, 1, 256)[:, None] ** appearance.gamma
    # Warm light is rich in red and poor in blue; exponents fitted by eye to black-body white points.
    octaves = math.log2(appearance.colour_temperature_k / 6500)
    gains = appearance.brightness * np.array([2 ** (-0.3 * octaves), 1.0, 2 ** (0.4 * octaves)])
    curve = ((levels - 0.45) * appearance.contrast + 0.45) * gains
    toned = cv2.LUT(image, np.clip(np.rint(curve * 255), 0, 255).astype(np.uint8)[None])
    if appearance.shadow_strength == 0 and appearance.noise_sigma == 0:
        return toned
    result = toned * _shadow(image.shape[0], image.shape[1], appearance)[:, :, None]
    if appearance.noise_sigma > 0:
        rng = np.random.default_rng([8, appearance.noise_seed])
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        result = cv2.scaleAdd(noise, appearance.noise_sigma, result)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _shadow(height: int, width: int, appearance: Appearance) -> Float32[np.ndarray, "height width"]:
    """Brightness factors from 1 down to 1 - shadow_strength along a direction."""
    angle = math.radians(appearance.shadow_direction_deg)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * math.cos(angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * math.sin(angle)
    reach = (x + y) / (abs(math.cos(angle)) + abs(math.sin(angle))) + 0.5
    return (1 - appearance.shadow_strength * reach).astype(np.float32)
