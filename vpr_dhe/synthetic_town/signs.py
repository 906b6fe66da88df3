"""Sign boards with a word and a badge, which are landmarks of the town."""

import string

import cv2
import numpy as np

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.canvas import BoxM, Canvas
from vpr_dhe.synthetic_town.plans import SIGN_COLOURS, Colour, vary

_FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX, cv2.FONT_HERSHEY_SIMPLEX)


def sign_colour(rng: np.random.Generator, spread: float) -> Colour:
    """Draw a strong colour at random."""
    return vary(SIGN_COLOURS[rng.integers(len(SIGN_COLOURS))], rng, spread)


def contrast(colour: Colour) -> Colour:
    """Ink that is legible on a colour."""
    return (30, 28, 26) if sum(colour) > 400 else (240, 232, 206)


def paint_sign(
    canvas: Canvas,
    box_m: BoxM,
    colour: Colour,
    rng: np.random.Generator,
    opacity: float = 1.0,
) -> None:
    """Paint a board (left, bottom, right, top) with a random word and a badge."""
    view = canvas.region(*box_m)
    height, width = view.shape[:2]
    if height < 8 or width < 24:
        return
    board = np.full((height, width, 3), colour, np.uint8)
    ink = contrast(colour)
    _write(board, ink, rng)
    cv2.rectangle(board, (1, 1), (width - 2, height - 2), ink, 1)
    view[:] = cv2.addWeighted(board, opacity, np.ascontiguousarray(view), 1 - opacity, 0)


def _write(board: Image, ink: Colour, rng: np.random.Generator) -> None:
    """Write a word as large as fits, beside a triangular, square or round badge."""
    word = "".join(rng.choice(list(string.ascii_uppercase), size=int(rng.integers(3, 9))))
    height, width = board.shape[:2]
    badge = height * 3 // 5
    font = _FONTS[int(rng.integers(len(_FONTS)))]
    (text_width, text_height), _ = cv2.getTextSize(word, font, 1.0, 2)
    scale = min((width - badge * 1.8) / max(text_width, 1), 0.62 * height / max(text_height, 1))
    side = int(rng.integers(2))
    x = round(badge * (0.35 + 1.1 * side)) if scale > 0.2 else width
    y = round(height / 2 + scale * text_height / 2)
    cv2.putText(board, word, (x, y), font, max(scale, 0.1), ink, 2, cv2.LINE_AA)
    centre, radius = (badge * 4 // 5 if side else width - badge * 3 // 4, height // 2), max(badge // 2, 2)
    corners = (3, 4, 24)[int(rng.integers(3))]
    angle = np.deg2rad(np.arange(corners) * 360 / corners - 90)
    outline = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cv2.fillConvexPoly(board, outline.round().astype(np.int32), ink, cv2.LINE_AA)
