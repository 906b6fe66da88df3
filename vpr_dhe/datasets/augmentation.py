"""Random views of an image: crops, warps or oblique views, with changes of lighting.

Source of the warps: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798), section 3: corners
move by up to a quarter of the patch's side along each axis.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.records import Image, Size

MAX_CORNER_SHIFT = 0.25
"""Largest shift of a corner along each axis, as a share of the side of the view."""
_MIN_CROP = 0.6
_MAX_DISTORTION = 0.1


class WarpedViews(NamedTuple):
    """Two views of one image; `homography` maps pixels of A to pixels of B, with H[2, 2] = 1."""

    image_a: Image
    image_b: Image
    homography: Float64[np.ndarray, "3 3"]


def warped_views(image: Image, size: Size, random: np.random.Generator) -> WarpedViews:
    """Make two views of `size` of an image, each with random lighting.

    View A is a random crop, between 60 and 100 % of each side. View B is A with displaced corners, padded by reflection
    beyond the image.
    """
    crop = random.uniform(_MIN_CROP, 1.0, 2)
    # Downsampled to the resolution of A, because warping samples single pixels and would alias.
    whole = Size(*(max(1, round(side / part)) for side, part in zip(size, crop, strict=True)))
    image = _resized(image, whole)
    left, top = (random.uniform(0, full - part) for full, part in zip(whole, size, strict=True))
    to_a = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    homography = random_homography(size, random)
    view_a, view_b = (_warped(image, matrix, size) for matrix in (to_a, homography @ to_a))
    return WarpedViews(relit(view_a, random), relit(view_b, random), homography)


def distorted_crop(image: Image, whole: Size, size: Size, random: np.random.Generator) -> Image:
    """Crop a view of `size` from an image resized to between 1 and 1.7 times `whole` along each axis.

    Its corners are displaced by up to a tenth of its sides, and half of the views are mirrored. Views are padded by
    reflection beyond the image.
    """
    crop = random.uniform(_MIN_CROP, 1.0, 2)
    enlarged = Size(*(max(part, round(side / share)) for side, part, share in zip(whole, size, crop, strict=True)))
    left, top = (random.uniform(0, full - part) for full, part in zip(enlarged, size, strict=True))
    to_view = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    view = _warped(_resized(image, enlarged), random_homography(size, random, _MAX_DISTORTION) @ to_view, size)
    return np.ascontiguousarray(view[:, ::-1]) if random.random() < 0.5 else view


def random_homography(
    size: Size, random: np.random.Generator, max_shift: float = MAX_CORNER_SHIFT
) -> Float64[np.ndarray, "3 3"]:
    """Draw a homography with uniform corner displacements of up to `max_shift` of the sides of an image."""
    square = corners(size)
    moved = square + torch.from_numpy(random.uniform(-max_shift, max_shift, (4, 2)) * np.array(size))
    return four_point_homography(square, moved).numpy()


def _warped(image: Image, image_to_view: Float64[np.ndarray, "3 3"], size: Size) -> Image:
    warped = cv2.warpPerspective(image, image_to_view, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.uint8, copy=False)


def _resized(image: Image, size: Size) -> Image:
    """Resize an image, with area averaging for downsampling."""
    shrinking = size.width * size.height < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=interpolation).astype(np.uint8, copy=False)


def random_view(
    image: UInt8[np.ndarray, "height width *channels"], long_side_px: int, random: np.random.Generator
) -> Float32[np.ndarray, "view_height view_width *channels"]:
    """Make a random view of an image, grey or in colour, in [0, 1], with a longer side of `long_side_px`."""
    height, width = image.shape[:2]
    aspect = np.exp(random.uniform(np.log(0.95), np.log(1.5)))
    view_height = min(height, width / aspect) * random.uniform(0.65, 1.0)
    view_width = view_height * aspect
    left = random.uniform(0, width - view_width)
    top = (height - view_height) * np.clip(random.normal(0.5, 0.2), 0, 1)
    outline = np.array([[0, 0], [view_width, 0], [view_width, view_height], [0, view_height]]) + np.array([left, top])
    # In oblique views, one edge of a facade is taller than the other, and the facade is narrower.
    yaw = random.uniform(-0.16, 0.16)
    outline[:, 1] += np.array([-1, 1, -1, 1]) * yaw * view_height / 2
    outline[:, 0] += np.array([1, -1, -1, 1]) * abs(yaw) * view_width / 4
    outline += random.normal(0, 0.015, (4, 2)) * view_height
    sides = (round(long_side_px * min(1.0, aspect)), round(long_side_px / max(1.0, aspect)))
    target = np.array([[0, 0], [sides[0], 0], sides, [0, sides[1]]], np.float32)
    shrinking = view_height / sides[1]
    # Blurred first, because warping samples single pixels and would alias.
    source = cv2.GaussianBlur(image, (0, 0), 0.45 * shrinking) if shrinking > 1.2 else image
    transform = cv2.getPerspectiveTransform(outline.astype(np.float32), target)
    warped = cv2.warpPerspective(source, transform, sides, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return in_other_light(warped.astype(np.float32) / 255, random)


def in_other_light(
    pixels: Float32[np.ndarray, "height width *channels"], random: np.random.Generator
) -> Float32[np.ndarray, "height width *channels"]:
    """Change tone, contrast, shading and sharpness, and add occluders; pixels stay in [0, 1].

    Colour images also get a random colour cast, as at another time of day.
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
    """Change the lighting of an image at random; see `in_other_light`."""
    return np.rint(255 * in_other_light(image.astype(np.float32) / 255, random)).astype(np.uint8)


def _occlude(pixels: Float[np.ndarray, "height width *channels"], random: np.random.Generator) -> None:
    """Paint, in place, a uniform rectangle where vehicles and people usually are."""
    height, width = pixels.shape[:2]
    box_width, box_height = int(width * random.uniform(0.1, 0.35)), int(height * random.uniform(0.15, 0.4))
    left, top = int(random.integers(0, width - box_width)), int((height - box_height) * random.uniform(0.3, 1.0))
    pixels[top : top + box_height, left : left + box_width] = random.uniform(0, 1)
