"""Random views of one image: another part of it, seen from a little to the side, in another light."""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from vpr_dhe.records import Image


def random_view(
    image: UInt8[np.ndarray, "height width"], long_side_px: int, random: np.random.Generator
) -> Float32[np.ndarray, "view_height view_width"]:
    """Make a random view of a grey image; in [0, 1], its longer side `long_side_px`."""
    height, width = image.shape
    aspect = np.exp(random.uniform(np.log(0.95), np.log(1.5)))
    view_height = min(height, width / aspect) * random.uniform(0.65, 1.0)
    view_width = view_height * aspect
    left = random.uniform(0, width - view_width)
    top = (height - view_height) * np.clip(random.normal(0.5, 0.2), 0, 1)
    corners = np.array([[0, 0], [view_width, 0], [view_width, view_height], [0, view_height]]) + np.array([left, top])
    # Seen from the side, a facade has one edge taller than the other and is narrower.
    yaw = random.uniform(-0.16, 0.16)
    corners[:, 1] += np.array([-1, 1, -1, 1]) * yaw * view_height / 2
    corners[:, 0] += np.array([1, -1, -1, 1]) * abs(yaw) * view_width / 4
    corners += random.normal(0, 0.015, (4, 2)) * view_height
    sides = (round(long_side_px * min(1.0, aspect)), round(long_side_px / max(1.0, aspect)))
    target = np.array([[0, 0], [sides[0], 0], sides, [0, sides[1]]], np.float32)
    shrinking = view_height / sides[1]
    # Warping samples single pixels, so what would alias is blurred first.
    source = cv2.GaussianBlur(image, (0, 0), 0.45 * shrinking) if shrinking > 1.2 else image
    transform = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    warped = cv2.warpPerspective(source, transform, sides, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return in_other_light(warped.astype(np.float32) / 255, random)


def in_other_light(
    pixels: Float32[np.ndarray, "height width *channels"], random: np.random.Generator
) -> Float32[np.ndarray, "height width *channels"]:
    """Change tone, contrast, shading, sharpness, and what stands in the way; pixels stay in [0, 1].

    Colours get a random cast besides, as of another time of day.
    """
    height, width, *channels = pixels.shape
    pixels = np.clip(pixels, 0, 1) ** np.exp(random.normal(0, 0.35))
    pixels = (pixels - 0.5) * np.exp(random.normal(0, 0.2)) + 0.5 + random.normal(0, 0.07)
    if channels:
        pixels = pixels * np.exp(random.normal(0, 0.08, channels))
    if random.random() < 0.5:
        direction = random.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[0:height, 0:width]
        ramp = np.cos(direction) * (columns / width - 0.5) + np.sin(direction) * (rows / height - 0.5)
        shading = np.exp(random.normal(0, 0.5) * ramp)
        pixels = pixels * (shading[:, :, None] if channels else shading)
    if random.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), random.uniform(0.3, 1.0))
    if random.random() < 0.4:
        _occlude(pixels, random)
    pixels = pixels + random.normal(0, random.uniform(0, 0.02), pixels.shape)
    return np.clip(pixels, 0, 1).astype(np.float32)


def relit(image: Image, random: np.random.Generator) -> Image:
    """An image in another light."""
    return np.rint(255 * in_other_light(image.astype(np.float32) / 255, random)).astype(np.uint8)


def _occlude(pixels: Float[np.ndarray, "height width *channels"], random: np.random.Generator) -> None:
    """Paint, in place, a flat rectangle where vehicles and people mostly are."""
    height, width = pixels.shape[:2]
    box_width, box_height = int(width * random.uniform(0.1, 0.35)), int(height * random.uniform(0.15, 0.4))
    left, top = int(random.integers(0, width - box_width)), int((height - box_height) * random.uniform(0.3, 1.0))
    pixels[top : top + box_height, left : left + box_width] = random.uniform(0, 1)
