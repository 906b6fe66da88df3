"""Sparse matches of two images: SIFT keypoints with RootSIFT descriptors, matched by a mutual ratio test.

Source: Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004; Arandjelovic and Zisserman,
"Three things everyone should know to improve object retrieval", CVPR 2012, section 2 (RootSIFT).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8

from vpr_dhe.records import Image, Matches

MAX_KEYPOINTS = 4000
CONTRAST_THRESHOLD = 0.02
RATIO = 0.85
# Rectified matches are restricted to a radius, so the ratio test must reject only repeated structure within it.
RECTIFIED_RATIO = 0.95
TOLERANCE_PX = 3.0
# SIFT repeats a keypoint for up to this many further orientations.
_MAX_ORIENTATIONS = 3
_DUPLICATE_PX = 0.01
_BORDER_PX = 9


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one image: points (x, y) in pixels and unit-norm RootSIFT descriptors."""

    points: Float64[np.ndarray, "keypoints 2"]
    descriptors: Float32[np.ndarray, "keypoints 128"]


def detect_and_extract(
    image: Image, mask: UInt8[np.ndarray, "height width"] | None = None, *, max_keypoints: int = MAX_KEYPOINTS
) -> Keypoints:
    """Detect the strongest SIFT keypoints, where `mask` is not zero, and compute their RootSIFT descriptors.

    Takes about 250 bytes of memory per pixel.
    """
    # Without `enable_precise_upscale`, OpenCV's first octave shifts keypoints by a quarter of a pixel.
    detector = cv2.SIFT.create(max_keypoints, contrastThreshold=CONTRAST_THRESHOLD, enable_precise_upscale=True)
    found, sift = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), mask)
    if sift is None or not found:
        return Keypoints(np.empty((0, 2)), np.empty((0, 128), np.float32))
    histogram = sift / np.maximum(sift.sum(axis=1, keepdims=True), 1e-8)
    return Keypoints(np.array([keypoint.pt for keypoint in found], np.float64), np.sqrt(histogram))


def match_keypoints(a: Keypoints, b: Keypoints) -> Matches:
    """Match mutual nearest neighbours that are clearly nearer than the second (Lowe 2004, section 7.1)."""
    return _select(a, b, a.descriptors @ b.descriptors.T, RATIO)


def match_rectified(
    image_a: Image,
    image_b: Image,
    b: Keypoints,
    a_to_b: Float64[np.ndarray, "3 3"],
    radius_px: float,
    *,
    max_keypoints: int = MAX_KEYPOINTS,
) -> Matches:
    """Warp A onto B by an estimated homography, detect again, and match within a radius in pixels of B.

    The warp removes most of the viewpoint change, which SIFT tolerates up to about 40 degrees; the radius excludes
    repeated structure elsewhere. Points of A are returned in pixels of the original image.

    Source: view synthesis on demand, Mishkin, Matas and Perdoch, "MODS: fast and robust method for two-view
    matching", CVIU 2015.
    """
    size = (image_b.shape[1], image_b.shape[0])
    warped = cv2.warpPerspective(image_a, a_to_b, size)
    covered = cv2.warpPerspective(np.full(image_a.shape[:2], 255, np.uint8), a_to_b, size, flags=cv2.INTER_NEAREST)
    # The border of the warped image is not an edge of the scene.
    inside = cv2.erode(covered, np.ones((_BORDER_PX, _BORDER_PX), np.uint8), borderValue=0)
    rectified = detect_and_extract(warped, inside, max_keypoints=max_keypoints)
    similarity = rectified.descriptors @ b.descriptors.T
    for axis in (0, 1):
        similarity[_far_apart(rectified.points[:, axis], b.points[:, axis], radius_px)] = -1
    back = cv2.perspectiveTransform(rectified.points[None], np.linalg.inv(a_to_b))[0] if len(rectified.points) else None
    return _select(rectified, b, similarity, RECTIFIED_RATIO, points_a=back)


def _far_apart(a: Float64[np.ndarray, " a"], b: Float64[np.ndarray, " b"], radius_px: float) -> Bool[np.ndarray, "a b"]:
    """Mask of coordinates that differ by more than a radius."""
    apart = np.subtract.outer(a, b)
    return np.abs(apart, out=apart) > radius_px


def _select(
    a: Keypoints,
    b: Keypoints,
    similarity: Float32[np.ndarray, "a b"],
    ratio: float,
    points_a: Float64[np.ndarray, "a 2"] | None = None,
) -> Matches:
    """Keep mutual maxima of the similarity (cosine; below 0: excluded) that pass the ratio test along B."""
    if not similarity.size:
        no_points = torch.empty(0, 2, dtype=torch.float64)
        return Matches(no_points, no_points, torch.empty(0), TOLERANCE_PX)
    rows = np.arange(len(similarity))
    best = similarity.argmax(axis=1)
    mutual = (similarity.argmax(axis=0)[best] == rows) & (similarity[rows, best] > 0)
    rows, chosen = rows[mutual], best[mutual]
    value = similarity[rows, chosen]
    second = _second_best(similarity[rows], chosen, b.points)
    passes = np.sqrt(np.maximum(2 - 2 * value, 0)) < ratio * np.sqrt(np.maximum(2 - 2 * second, 0))
    source = a.points if points_a is None else points_a
    return Matches(
        torch.from_numpy(source[rows[passes]]),
        torch.from_numpy(b.points[chosen[passes]]),
        torch.from_numpy(value[passes]),
        TOLERANCE_PX,
    )


def _second_best(
    similarity: Float32[np.ndarray, "matches b"], chosen: np.ndarray, points: Float64[np.ndarray, "b 2"]
) -> Float32[np.ndarray, " matches"]:
    """Best similarity to another keypoint; adjacent keypoints at the same point are orientations of one keypoint."""
    rest = similarity.copy()
    for offset in range(-_MAX_ORIENTATIONS, _MAX_ORIENTATIONS + 1):
        neighbour = np.clip(chosen + offset, 0, len(points) - 1)
        duplicate = np.abs(points[neighbour] - points[chosen]).max(axis=1, initial=0.0) < _DUPLICATE_PX
        rest[np.flatnonzero(duplicate), neighbour[duplicate]] = -1
    return rest.max(axis=1, initial=-1)
