"""Alignment of two images by any estimator."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from vpr_dhe.errors import VerifierError
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.keypoints import TOLERANCE_PX, detect_and_extract, match_keypoints
from vpr_dhe.images.loading import ImageLike, image_size
from vpr_dhe.models.network_file import load_networks
from vpr_dhe.records import (
    NOT_VERIFIED,
    Image,
    Matches,
    Size,
    StartProgress,
    StrPath,
    Verification,
    without_progress,
)
from vpr_dhe.runtime.choices import AUTO, FP32, Precision, Runtime, features_precision
from vpr_dhe.verification.auto_aligner import AutomaticAligner
from vpr_dhe.verification.build import build_estimator, require_used
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.keypoint_refinement import (
    MIN_CREDIBLE_INLIERS,
    count_agreeing,
    preserves_orientation,
    refine,
    verify_matches,
)
from vpr_dhe.verification.names import AUTOMATIC, DEFAULT_VERIFIER, MAGSAC
from vpr_dhe.verification.rescaling import PairSizes, rescaled
from vpr_dhe.verification.verifier import Verifier
from vpr_dhe.verification.window_refinement import refined_in_windows
from vpr_dhe.verification.working_copy import Picture

Aligner: TypeAlias = Callable[[Image | Picture, Image | Picture], Verification]
"""Function that aligns two images."""

# Radii, in pixels of the candidate, of the rounds that refine an alignment.
_RECTIFIED_RADII_PX = (12.0, 4.0)
# Those of the rounds that refine a coarse one, of which a cell may be 16 pixels large.
_COARSE_RADII_PX = (24.0, 4.0)
# Cells within the tolerance of three of them: of 40 pairs of street photos of different places, none had more than 22
# inliers, with the local maps of `lite-vlad` and `sift-vlad` (median 10 and 9).
_CHANCE_CELLS = 25


def align(
    image_a: ImageLike | StrPath,
    image_b: ImageLike | StrPath,
    *,
    method: str = DEFAULT_VERIFIER,
    model: str | None = None,
    weights: Iterable[StrPath] = (),
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: Precision = FP32,
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
        ModelError, VerifierError: as for `load_resources` and `build_aligners`.
    """
    resources = load_resources(
        model,
        weights,
        device,
        runtime=runtime,
        precision=precision,
        start_progress=start_progress,
        max_seconds=max_seconds,
    )
    return build_aligner(method, resources)(open_picture(image_a), open_picture(image_b))


def build_aligner(name: str, resources: Resources | None = None) -> Aligner:
    """Build a function that aligns two images; as `build_aligners`, for one method."""
    return build_aligners([name], resources or Resources())[name]


def load_resources(
    model: str | None = None,
    weights: Iterable[StrPath] = (),
    device: str = "cpu",
    *,
    runtime: Runtime = AUTO,
    precision: Precision = FP32,
    start_progress: StartProgress = without_progress,
    max_seconds: float | None = None,
) -> Resources:
    """Load what aligners are built from, with the arguments of `align`.

    Raises:
        ModelError: if the model is unknown, or a network file is missing or damaged.
    """
    extractor = (
        None
        if model is None
        else load_extractor(model, device, precision=features_precision(precision), runtime=runtime)
    )
    return Resources(extractor, load_networks(weights), device, precision, start_progress, max_seconds)


def build_aligners(names: Sequence[str], resources: Resources) -> dict[str, Aligner]:
    """Build a function that aligns two images for each of some methods, by the name of the method.

    Raises:
        VerifierError: if a method is unknown, needs a head or a network that is not given, or cannot stop early, or
            if a network is for none of the methods, unless one is `auto`, which tries all.
        ModelError: if a network file is damaged.
    """
    if AUTOMATIC not in names:
        require_used(resources, names)
    return {name: _aligner_by(name, resources) for name in names}


def _aligner_by(name: str, resources: Resources) -> Aligner:
    if name == AUTOMATIC:
        automatic = partial(_align_working, build_automatic(resources))
        return partial(_align_in_windows, automatic, Verifier(OpenCvEstimator(MAGSAC)))
    verifier = Verifier(build_estimator(name, resources))
    if verifier.estimator.is_coarse:
        coarsely = partial(_align_working, partial(align_coarsely, verifier=verifier))
        return partial(_align_in_windows, coarsely, Verifier(OpenCvEstimator(MAGSAC)))
    if resources.extractor is not None:
        return partial(_align_working, partial(_align_by_features, resources.extractor, verifier))
    by_keypoints = partial(_align_working, partial(align_keypoints, verifier=verifier))
    return by_keypoints if verifier.estimator.uses_images else partial(_align_in_windows, by_keypoints, verifier)


def build_automatic(resources: Resources) -> AutomaticAligner:
    """Build the method `auto`, with all networks that are given and estimate from images.

    Raises:
        VerifierError: if there is a model, a time limit or a precision, which it has no use for.
        ModelError: if a network file is damaged.
    """
    if resources.extractor is not None or resources.max_seconds is not None or resources.precision == "int8":
        raise VerifierError(f"{AUTOMATIC} takes no --model, no --max-seconds and no --precision int8; leave them out")
    networks = [build_estimator(name, resources) for name in resources.networks]
    return AutomaticAligner(networks, resources.device)


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
    found = verifier.verify(View(features.frame, lambda: query, lambda: features), [view])[0]
    cells = extractor.spec.grid.rows * extractor.spec.grid.columns
    by_chance = verifier.estimator.chance_inliers if verifier.estimator.uses_images else min(_CHANCE_CELLS, cells // 16)
    return _unless_by_chance(found, by_chance, image_size(query))


def _unless_by_chance(found: Verification, chance_inliers: int, size: Size) -> Verification:
    """The estimate, or a failure if its matches may agree by chance, or it mirrors or collapses the image.

    Without a number of inliers, the estimate is of pixels, and need not agree with any match.
    """
    if not chance_inliers or found.homography is None:
        return found
    credible = found.inliers >= chance_inliers and preserves_orientation(found.homography, size)
    return found if credible else NOT_VERIFIED


def align_keypoints(query: Image, candidate: Image, verifier: Verifier) -> Verification:
    """Align two images by sparse keypoints, to a fraction of a pixel where the scene is planar or far away.

    The first estimate is refined from matches of the rectified query, within smaller and smaller radii. A round
    replaces the estimate only if it keeps at least half of the inliers, so a bad warp cannot spoil a good estimate.
    Fewer than 8 inliers, or a homography that mirrors or collapses the image, count as a failure.

    The homography of an estimator that uses images (`HomographyEstimator.uses_images`) is not refined. It has the
    keypoint matches that agree with it or, if the estimator has matches of its own, must have `chance_inliers` of them.
    """
    keypoints = detect_and_extract(candidate)
    best = verify_matches(query, candidate, match_keypoints(detect_and_extract(query), keypoints), verifier)
    if verifier.estimator.uses_images:
        return _unless_by_chance(best, verifier.estimator.chance_inliers, image_size(query))
    best = refine(query, candidate, keypoints, best, verifier, _RECTIFIED_RADII_PX)
    return _unless_by_chance(best, MIN_CREDIBLE_INLIERS, image_size(query))


def align_coarsely(query: Image, candidate: Image, verifier: Verifier) -> Verification:
    """Align two images by a method that is coarse, and refine the estimate by sparse keypoints and `magsac`.

    A homography that fewer than 8 matches of the rectified query agree with counts as a failure.
    """
    no_matches = Matches(torch.empty(0, 2).double(), torch.empty(0, 2).double(), torch.empty(0), TOLERANCE_PX)
    start = verify_matches(query, candidate, no_matches, verifier)
    keypoints = detect_and_extract(candidate)
    by_keypoints = Verifier(OpenCvEstimator(MAGSAC))
    best = refine(query, candidate, keypoints, start, by_keypoints, _COARSE_RADII_PX, min_kept=0.0)
    if best.homography is None or count_agreeing(query, candidate, keypoints, best.homography) < MIN_CREDIBLE_INLIERS:
        return NOT_VERIFIED
    return replace(best, details=start.details)
