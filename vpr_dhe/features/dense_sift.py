"""Upright dense RootSIFT: SIFT descriptors without keypoint detection, on a regular grid or at given points.

Source: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004; Arandjelovic and Zisserman,
"Three things everyone should know to improve object retrieval", CVPR 2012 (RootSIFT).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

ORIENTATIONS = 8
SPATIAL_BINS = 4
DIMENSION = ORIENTATIONS * SPATIAL_BINS**2
# Images are resized so that a spatial bin has this side, which makes coarse scales cheap.
BIN_SIDE_PX = 4
# Dominant gradients are clipped at this share of the norm (Lowe, section 6.1).
_CLIP = np.float32(0.2)
# Point descriptors are smoothed by bin side / magnification before taking gradients, as in VLFeat.
_MAGNIFICATION = 6.0
_TINY = np.float32(1e-6)


@dataclass(frozen=True)
class DenseDescriptors:
    """Descriptors of one image.

    `rootsift` has unit norm and the order (bin row, bin column, orientation); `energy` is the norm of the gradients in
    each window, near 0 in flat regions; `height` is the vertical position of each centre, 0 at the top of the image and
    1 at its bottom.
    """

    rootsift: Float32[np.ndarray, "points 128"]
    energy: Float32[np.ndarray, " points"]
    height: Float32[np.ndarray, " points"]


def rootsift_grid(
    grey: Float32[np.ndarray, "height width"], bin_size_px: float, smoothing_px: float
) -> DenseDescriptors:
    """Extract descriptors on a grid whose step is one bin.

    A descriptor is a window of 4 x 4 bins. Neighbouring descriptors share bins, so gradients are pooled once per bin.

    Args:
        grey: luminance in [0, 1].
        bin_size_px: side of one spatial bin, in pixels of `grey`.
        smoothing_px: Gaussian sigma before gradients, after resampling to `BIN_SIDE_PX` pixels per bin.
    """
    scaled = resize(grey, BIN_SIDE_PX / bin_size_px)
    smooth = cv2.GaussianBlur(scaled, (0, 0), smoothing_px)
    planes = _pooled_orientations(smooth, float(BIN_SIDE_PX))
    half = BIN_SIDE_PX // 2
    cells = np.stack([plane[half::BIN_SIDE_PX, half::BIN_SIDE_PX] for plane in planes], axis=-1)
    rows, columns = cells.shape[0] - SPATIAL_BINS + 1, cells.shape[1] - SPATIAL_BINS + 1
    histograms = np.empty((rows, columns, SPATIAL_BINS, SPATIAL_BINS, ORIENTATIONS), np.float32)
    for bin_row in range(SPATIAL_BINS):
        for bin_column in range(SPATIAL_BINS):
            window = cells[bin_row : bin_row + rows, bin_column : bin_column + columns]
            histograms[:, :, bin_row, bin_column] = window
    rootsift, energy = _root_normalised(histograms.reshape(-1, DIMENSION))
    first_centre_px = half + BIN_SIDE_PX * (SPATIAL_BINS - 1) / 2
    heights = (np.arange(rows, dtype=np.float32) * BIN_SIDE_PX + np.float32(first_centre_px)) / scaled.shape[0]
    return DenseDescriptors(rootsift, energy, np.repeat(heights, columns).astype(np.float32))


def rootsift_at(
    grey: Float32[np.ndarray, "height width"], centres: Float64[np.ndarray, "points 2"], bin_size_px: float
) -> tuple[Float32[np.ndarray, "points 128"], Float32[np.ndarray, " points"]]:
    """Extract descriptors at points (x, y) in pixels; returns unit-norm descriptors and their energy.

    Args:
        grey: luminance in [0, 1].
        centres: centres of windows of 4 x 4 bins; the image is padded by replication.
        bin_size_px: side of one spatial bin.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), bin_size_px / _MAGNIFICATION)
    planes = np.stack(_pooled_orientations(smooth, bin_size_px), axis=-1)
    offsets_px = (np.arange(SPATIAL_BINS) - (SPATIAL_BINS - 1) / 2) * bin_size_px
    columns = np.rint(centres[:, 0, None] + offsets_px).astype(np.int64).clip(0, grey.shape[1] - 1)
    rows = np.rint(centres[:, 1, None] + offsets_px).astype(np.int64).clip(0, grey.shape[0] - 1)
    return _root_normalised(planes[rows[:, :, None], columns[:, None, :]].reshape(-1, DIMENSION))


def resize(grey: Float32[np.ndarray, "height width"], factor: float) -> Float32[np.ndarray, "new_height new_width"]:
    """Scale an image by a factor, but each side to at least the width of one descriptor."""
    min_side = BIN_SIDE_PX * SPATIAL_BINS
    height, width = (max(min_side, round(side * factor)) for side in grey.shape)
    if (height, width) == grey.shape:
        return grey
    # Area averaging is the only interpolation of OpenCV that does not alias when shrinking.
    shrinking = height * width < grey.size
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def _pooled_orientations(
    smooth: Float32[np.ndarray, "height width"], bin_size_px: float
) -> list[Float32[np.ndarray, "height width"]]:
    """Gradients with soft assignment to orientations, pooled over a triangular window two bins wide."""
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    magnitude, angle = cv2.cartToPolar(dx, dy)
    position = angle * np.float32(ORIENTATIONS / (2 * np.pi))
    floor = np.floor(position)
    to_upper = (position - floor) * magnitude
    to_lower = magnitude - to_upper
    lower = floor.astype(np.int32) % ORIENTATIONS
    upper = (lower + 1) % ORIENTATIONS
    reach = int(np.ceil(bin_size_px))
    taps = np.maximum(0.0, 1 - np.abs(np.arange(-reach, reach + 1)) / bin_size_px) / bin_size_px
    return [
        cv2.sepFilter2D(
            to_lower * (lower == orientation) + to_upper * (upper == orientation),
            cv2.CV_32F,
            taps,
            taps,
            borderType=cv2.BORDER_REPLICATE,
        )
        for orientation in range(ORIENTATIONS)
    ]


def _root_normalised(
    histograms: Float32[np.ndarray, "points 128"],
) -> tuple[Float32[np.ndarray, "points 128"], Float32[np.ndarray, " points"]]:
    energy = np.sqrt(np.einsum("pd,pd->p", histograms, histograms))
    clipped = np.minimum(histograms, _CLIP * energy[:, None])
    mass = clipped.sum(axis=1)
    # The square root of the L1-normalised histogram has unit L2 norm; a flat patch becomes the uniform histogram.
    rootsift = np.sqrt(clipped / np.maximum(mass, _TINY)[:, None])
    rootsift[mass < _TINY] = np.float32(DIMENSION**-0.5)
    return rootsift, energy
