"""Canvas addressed in metres, and textures of materials."""

from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.plans import Colour

BoxM: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right and top of a rectangle, metres."""
_Tone: TypeAlias = Float32[np.ndarray, "height width"]

# Blocks of each material: height and length in metres, spread of tone, tone of the joints, shift of every other course.
_COURSES = {
    "brick": (0.125, 0.32, 0.16, 1.22, True),
    "stone": (0.42, 0.85, 0.07, 0.78, True),
    "boards": (0.2, 60.0, 0.05, 0.72, False),
    "panels": (1.6, 2.4, 0.03, 0.66, False),
    "tiles": (0.35, 0.28, 0.16, 0.6, True),
    "slabs": (0.6, 0.6, 0.06, 0.8, False),
    "cobbles": (0.18, 0.22, 0.16, 0.68, True),
}


class Canvas:
    """RGB image addressed in metres, (0, 0) at its lower left corner, y up; drawing is clipped to the image."""

    def __init__(self, pixels: Image, px_per_m: float) -> None:
        self.pixels = pixels
        self.px_per_m = px_per_m

    @classmethod
    def of(
        cls, material: str, size_m: tuple[float, float], px_per_m: float, colour: Colour, rng: np.random.Generator
    ) -> "Canvas":
        """Make a wall or floor of size_m = (width, height)."""
        width, height = (max(round(side_m * px_per_m), 2) for side_m in size_m)
        return cls(_masonry(material, height, width, px_per_m, colour, rng), px_per_m)

    def region(self, left_m: float, bottom_m: float, right_m: float, top_m: float) -> Image:
        """Return a writable view of the pixels of a rectangle."""
        height, width = self.pixels.shape[:2]
        left, right = (min(max(round(edge * self.px_per_m), 0), width) for edge in (left_m, right_m))
        top, bottom = (min(max(height - round(edge * self.px_per_m), 0), height) for edge in (top_m, bottom_m))
        return self.pixels[top:bottom, left:right]

    def box(self, left_m: float, bottom_m: float, right_m: float, top_m: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.region(left_m, bottom_m, right_m, top_m)[:] = colour

    def shade(self, left_m: float, bottom_m: float, right_m: float, top_m: float, factor: float) -> None:
        """Darken (factor < 1) or lighten a rectangle."""
        view = self.region(left_m, bottom_m, right_m, top_m)
        view[:] = cv2.convertScaleAbs(np.ascontiguousarray(view), alpha=factor).reshape(view.shape)

    def cover(self, box_m: BoxM, material: str, colour: Colour, rng: np.random.Generator) -> None:
        """Cover a rectangle with a material."""
        view = self.region(*box_m)
        view[:] = _masonry(material, view.shape[0], view.shape[1], self.px_per_m, colour, rng)


def smooth_noise(height: int, width: int, cell_px: float, rng: np.random.Generator) -> _Tone:
    """Draw smooth noise in [0, 1] with bumps of about cell_px."""
    coarse = rng.random((int(height / cell_px) + 3, int(width / cell_px) + 3), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _masonry(
    material: str, height: int, width: int, px_per_m: float, colour: Colour, rng: np.random.Generator
) -> Image:
    """Paint a material with stains."""
    tone = _tone(material, height, width, px_per_m, rng)
    tone *= 0.9 + 0.2 * smooth_noise(height, width, px_per_m * 1.5, rng)
    return np.clip(tone[:, :, None] * np.array(colour, np.float32), 0, 255).astype(np.uint8)


def _tone(material: str, height: int, width: int, px_per_m: float, rng: np.random.Generator) -> _Tone:
    """Relative brightness of a material: grain and, for masonry, blocks and joints."""
    grain = 0.11 if material in ("asphalt", "cobbles") else 0.06
    tone = 1 + grain * (rng.random((height, width), dtype=np.float32) - 0.5) * 2
    if material not in _COURSES:
        return tone
    block_height_m, block_width_m, spread, joint, shifted = _COURSES[material]
    block_height, block_width = max(block_height_m * px_per_m, 3.0), max(block_width_m * px_per_m, 4.0)
    row = np.arange(height) / block_height
    shift = (row.astype(int) % 2)[:, None] * 0.5 * shifted
    column = np.arange(width)[None, :] / block_width + shift
    table = rng.normal(1, spread, (int(row[-1]) + 1, int(column.max()) + 1)).astype(np.float32)
    tone *= table[row.astype(int)[:, None], column.astype(int)]
    joints = ((column % 1) * block_width < 1) | ((row % 1) * block_height < 1)[:, None]
    tone[joints] = joint
    return tone
