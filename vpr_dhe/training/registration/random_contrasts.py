"""Random contrasts, which preserve edges and change intensities, to simulate other sensors.

After Hoffmann et al., "SynthMorph: Learning Contrast-Invariant Registration Without Acquired Images", IEEE TMI 2022
(arXiv:2004.10282): a network trained on random contrasts generalises to real ones. There, the classes of a label map
get random grey values; here, the colours of an image do, by random tone curves of random channel mixtures, or by class.
"""

import cv2
import numpy as np
from jaxtyping import Float32

from vpr_dhe.records import Image

_MAX_KNOTS = 5
_MIN_RANGE = 0.4
"""Minimum range of a tone curve, to keep some contrast."""
_MIN_SPREAD = 0.15
"""Minimum range of a mixture that is stretched to [0, 1]; smaller ranges would amplify noise and compression."""


def as_another_sensor(image: Image, random: np.random.Generator) -> Image:
    """Simulate another sensor or a map: other contrasts, in places inverted, and fewer details."""
    kind = random.random()
    if kind < 0.2:
        shown = _drawn(image, random)
    elif kind < 0.6:
        shown = _blended(in_random_contrast(image, random), in_random_contrast(image, random), random)
    else:
        shown = in_random_contrast(image, random)
    if random.random() < 0.3:
        shown = cv2.medianBlur(shown, int(random.choice([3, 5, 7])))
    return _enlarged(shown, random.uniform(1.5, 3)) if random.random() < 0.3 else shown


def _drawn(image: Image, random: np.random.Generator) -> Image:
    """Give each of a few classes of similar pixels a random colour, as in a map."""
    smooth = cv2.medianBlur(image, 5).reshape(-1, 3).astype(np.float32)
    centres = smooth[random.choice(len(smooth), int(random.integers(3, 9)))]
    classes = np.linalg.norm(smooth[:, None] - centres, axis=2).argmin(axis=1)
    channels = 1 if random.random() < 0.5 else 3
    colours = np.broadcast_to(random.integers(0, 256, (len(centres), channels)), (len(centres), 3))
    return colours[classes].reshape(image.shape).astype(np.uint8)


def _blended(one: Image, other: Image, random: np.random.Generator) -> Image:
    """Blend two images by a smooth random mask."""
    height, width = one.shape[:2]
    coarse = random.uniform(-1, 2, (int(random.integers(2, 5)), int(random.integers(2, 5)), 1)).astype(np.float32)
    share = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)[:, :, None]
    return np.rint(share * one + (1 - share) * other).astype(np.uint8)


def _enlarged(image: Image, factor: float) -> Image:
    """Reduce the resolution of an image by a factor at the same size."""
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(1, round(width / factor)), max(1, round(height / factor))), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def in_random_contrast(image: Image, random: np.random.Generator) -> Image:
    """Convert an image to grey, or to false colours, with random contrast."""
    channels = 1 if random.random() < 0.6 else 3
    mixtures = _mixtures(image.astype(np.float32) / 255, channels, random)
    toned = [_tone(mixtures[:, :, channel], random) for channel in range(channels)]
    pixels = np.stack(toned * (3 // channels), axis=2)
    if random.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), random.uniform(0.5, 1.5))
    return np.rint(255 * pixels).astype(np.uint8)


def _mixtures(
    pixels: Float32[np.ndarray, "height width 3"], count: int, random: np.random.Generator
) -> Float32[np.ndarray, "height width count"]:
    """Random linear combinations of channels, each stretched to [0, 1]."""
    brightness, colour = random.normal(0, 1, (1, count)), random.normal(0, 0.5, (3, count))
    mixed = pixels @ (brightness / 3 + colour).astype(np.float32)
    low, high = np.percentile(mixed, (1, 99), axis=(0, 1))
    return np.clip((mixed - low) / np.maximum(high - low, _MIN_SPREAD), 0, 1).astype(np.float32)


def _tone(
    values: Float32[np.ndarray, "height width"], random: np.random.Generator
) -> Float32[np.ndarray, "height width"]:
    """Apply a random tone curve, linear or nonlinear; one in four is quantised, as the colours of maps."""
    knots = int(random.integers(2, _MAX_KNOTS + 1))
    curve = random.uniform(0, 1, knots)
    spread = max(float(np.ptp(curve)), 1e-3)
    if spread < _MIN_RANGE:
        curve = np.clip(0.5 + (curve - curve.mean()) * _MIN_RANGE / spread, 0, 1)
    if random.random() < 0.25:
        levels = int(random.integers(3, 9))
        values = np.floor(values * levels).clip(max=levels - 1) / (levels - 1)
    return np.interp(values, np.linspace(0, 1, knots), curve).astype(np.float32)
