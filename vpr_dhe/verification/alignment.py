"""Alignment of two images by any estimator."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.keypoints import detect_and_describe, match_keypoints, match_rectified
from vpr_dhe.images import ImageLike, image_size
from vpr_dhe.models.network_file import load_networks
from vpr_dhe.records import (
    NOT_VERIFIED,
    Frame,
    Image,
    Matches,
    Size,
    StartProgress,
    StrPath,
    Verification,
    without_progress,
)
from vpr_dhe.runtime.choices import AUTO, Precision, Runtime, features_precision
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.estimators.registry import Resources
from vpr_dhe.verification.names import DEFAULT_VERIFIER
from vpr_dhe.verification.pictures import Picture
from vpr_dhe.verification.rescaling import PairSizes, rescaled
from vpr_dhe.verification.verifier import Verifier
from vpr_dhe.verification.window_refinement import refined_in_windows

Aligner: TypeAlias = Callable[[Image | Picture, Image | Picture], Verification]
"""Function that aligns two images."""

# Radii, in pixels of the candidate, of the rounds that refine an alignment.
_RECTIFIED_RADII_PX = (12.0, 4.0)
# Among thousands of keypoints, a handful agree by chance.
_MIN_CREDIBLE_INLIERS = 8
_MIN_AREA_RATIO = 1e-4


def align(
    image_a: ImageLike | StrPath,
    image_b: ImageLike | StrPath,
    *,
    method: str = DEFAULT_VERIFIER,
    model: str | None = None,
    weights: Iterable[StrPath] = (),
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: Precision = "fp32",
    max_seconds: float | None = None,
    start_progress: StartProgress = without_progress,
) -> Verification:
    """Estimate the homography that maps pixels of A to pixels of B, both of the original images.

    Images of more than 1.5 megapixels are aligned at about that size; the estimate is then refined in windows of
    the originals, unless a model or a method that uses images was given. Files are decoded one at a time.

    Args:
        image_a: image A, a file or an image in memory (see `require_image`).
        image_b: image B, likewise.
        method: name of an estimator, see `vpr-dhe verifiers`.
        model: model whose dense features are matched; None matches sparse keypoints.
        weights: network files, for methods that need their own network.
        device: a torch device.
        runtime: as for `load_extractor`.
        precision: of features and of the DHE head; `int8` is of the head alone.
        max_seconds: time limit of methods that learn on the pair; None is no limit.
        start_progress: called by slow methods.

    Returns:
        The homography and its inliers; on failure, the homography is None and there are no inliers.

    Raises:
        ImageError: if an image cannot be read.
        ModelError, VerifierError: as for `build_aligner`.
    """
    aligner = build_aligner(
        method,
        model,
        weights,
        device,
        runtime=runtime,
        precision=precision,
        start_progress=start_progress,
        max_seconds=max_seconds,
    )
    return aligner(open_picture(image_a), open_picture(image_b))


def build_aligner(
    name: str,
    model: str | None = None,
    weights: Iterable[StrPath] = (),
    device: str = "cpu",
    *,
    runtime: Runtime = AUTO,
    precision: Precision = "fp32",
    start_progress: StartProgress = without_progress,
    max_seconds: float | None = None,
) -> Aligner:
    """Build a function that aligns two images, with the arguments of `align`.

    Raises:
        ModelError: if the model is unknown, or a network file is missing or damaged.
        VerifierError: if the method is unknown, needs a head or a network that is not given, or cannot stop early.
    """
    extractor = (
        None
        if model is None
        else load_extractor(model, device, precision=features_precision(precision), runtime=runtime)
    )
    resources = Resources(extractor, load_networks(weights), device, precision, start_progress, max_seconds)
    verifier = Verifier(build_estimator(name, resources))
    if extractor is not None:
        return partial(_align_working, partial(_align_by_features, extractor, verifier))
    by_keypoints = partial(_align_working, partial(align_keypoints, verifier=verifier))
    return by_keypoints if verifier.estimator.uses_images else partial(_align_in_windows, by_keypoints, verifier)


def open_picture(image: ImageLike | StrPath) -> Picture:
    """Open an image to align.

    Raises:
        ImageError: if it cannot be read.
    """
    return Picture.of_file(Path(image)) if isinstance(image, (str, os.PathLike)) else Picture.of_image(image)


def _align_working(
    align_images: Callable[[Image, Image], Verification], query: Image | Picture, candidate: Image | Picture
) -> Verification:
    """Align the working copies of two images, and convert the result to the originals."""
    query, candidate = _as_picture(query), _as_picture(candidate)
    found = align_images(query.working, candidate.working)
    working = PairSizes(image_size(query.working), image_size(candidate.working))
    return rescaled(found, working, PairSizes(query.size, candidate.size))


def _align_in_windows(
    align_working: Aligner, verifier: Verifier, query: Image | Picture, candidate: Image | Picture
) -> Verification:
    """Align the working copies of two images, and refine the result in windows of the originals if they are larger."""
    query, candidate = _as_picture(query), _as_picture(candidate)
    found = align_working(query, candidate)
    is_reduced = query.is_reduced or candidate.is_reduced
    return refined_in_windows(query, candidate, found, verifier) if is_reduced else found


def _as_picture(image: Image | Picture) -> Picture:
    return image if isinstance(image, Picture) else Picture.of_image(image)


def _align_by_features(extractor: Extractor, verifier: Verifier, query: Image, candidate: Image) -> Verification:
    features, other = extractor.extract([query])[0], extractor.extract([candidate])[0]
    matches_of = match_by_grid(features, other.local_map[None], extractor.spec)
    view = View(other.frame, lambda: candidate, lambda: other, partial(matches_of, 0))
    return verifier.verify(View(features.frame, lambda: query, lambda: features), [view])[0]


def align_keypoints(query: Image, candidate: Image, verifier: Verifier) -> Verification:
    """Align two images by sparse keypoints, to a fraction of a pixel where the scene is planar or far away.

    The first estimate is refined from matches of the rectified query, within smaller and smaller radii. A round
    replaces the estimate only if it keeps at least half of the inliers, so a bad warp cannot spoil a good estimate.
    Fewer than 8 inliers, or a homography that mirrors or collapses the image, count as a failure.

    The homography of an estimator that uses images (`HomographyEstimator.uses_images`) is returned as it is, with the
    keypoint matches that agree with it.
    """
    keypoints = detect_and_describe(candidate)
    best = _verify_pair(query, candidate, match_keypoints(detect_and_describe(query), keypoints), verifier)
    if verifier.estimator.uses_images:
        return best
    for radius_px in _RECTIFIED_RADII_PX:
        # Go on with few inliers too: the rectified image may yield more.
        if best.homography is None or not _keeps_its_side(best.homography, image_size(query)):
            break
        matches = match_rectified(query, candidate, keypoints, best.homography, radius_px)
        refined = _verify_pair(query, candidate, matches, verifier)
        if refined.inliers < max(_MIN_CREDIBLE_INLIERS, best.inliers / 2):
            break
        best = refined
    credible = best.homography is not None and _keeps_its_side(best.homography, image_size(query))
    return best if credible and best.inliers >= _MIN_CREDIBLE_INLIERS else NOT_VERIFIED


def _verify_pair(query: Image, candidate: Image, matches: Matches, verifier: Verifier) -> Verification:
    query_frame, candidate_frame = (Frame(image_size(image), image_size(image)) for image in (query, candidate))
    view = View(candidate_frame, lambda: candidate, matches=lambda: matches)
    return verifier.verify(View(query_frame, lambda: query), [view])[0]


def _keeps_its_side(homography: Float64[np.ndarray, "3 3"], size: Size) -> bool:
    """Whether the centre of the image stays in front of the horizon, is not mirrored and does not collapse."""
    depth = float(homography[2] @ [(size.width - 1) / 2, (size.height - 1) / 2, 1.0])
    return depth > 0 and float(np.linalg.det(homography)) > _MIN_AREA_RATIO * depth**3
