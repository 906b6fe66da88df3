"""Refinement of a homography by keypoints of the rectified query, and the evidence that it is right."""

from collections.abc import Sequence
from math import inf

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.features.keypoints import TOLERANCE_PX, Keypoints, match_rectified
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import area_ratio, reprojection_errors
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Image, Matches, Size, Verification
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.verifier import Verifier

Homography = Float64[np.ndarray, "3 3"]

MIN_CREDIBLE_INLIERS = 8
"""Among thousands of keypoints, a handful agree by chance."""
_MIN_AREA_RATIO = 1e-4


def refine(
    query: Image,
    candidate: Image,
    keypoints: Keypoints,
    start: Verification,
    verifier: Verifier,
    radii_px: Sequence[float],
    *,
    min_kept: float = 0.5,
) -> Verification:
    """Refine an estimate from matches of the rectified query, within smaller and smaller radii.

    A round replaces the estimate only if it has 8 inliers, and keeps a share of `min_kept` of those before it, so a bad
    warp cannot spoil a good estimate.

    Args:
        query: query, all of its pixels.
        candidate: candidate.
        keypoints: of the candidate.
        start: estimate to begin with.
        verifier: estimates from the matches.
        radii_px: radius of matches in each round, in pixels of the candidate.
        min_kept: share of inliers to keep; 0.0 if those of the start are of another kind.
    """
    best = start
    for radius_px in radii_px:
        # Go on with few inliers too: the rectified image may yield more.
        if best.homography is None or not preserves_orientation(best.homography, image_size(query)):
            break
        matches = match_rectified(query, candidate, keypoints, best.homography, radius_px)
        refined = verify_matches(query, candidate, matches, verifier)
        if refined.inliers < max(MIN_CREDIBLE_INLIERS, min_kept * best.inliers):
            break
        best = refined
    return best


def count_agreeing(query: Image, candidate: Image, keypoints: Keypoints, homography: Homography) -> int:
    """Count the matches of the rectified query that a homography maps to within 3 pixels.

    They are mutual nearest neighbours among all keypoints of the candidate, wherever these are, so hardly any agrees by
    chance. 0 if the homography mirrors or collapses the image.
    """
    if not preserves_orientation(homography, image_size(query)):
        return 0
    matches = match_rectified(query, candidate, keypoints, homography, inf)
    errors_px = reprojection_errors(torch.tensor(homography), matches.query_points, matches.candidate_points)
    return int((errors_px < TOLERANCE_PX).sum())


def verify_matches(query: Image, candidate: Image, matches: Matches, verifier: Verifier) -> Verification:
    """Estimate and verify the homography of two images from their matches."""
    query_frame, candidate_frame = (Frame(image_size(image), image_size(image)) for image in (query, candidate))
    view = View(candidate_frame, lambda: candidate, matches=lambda: matches)
    return verifier.verify(View(query_frame, lambda: query), [view])[0]


def preserves_orientation(homography: Homography, size: Size) -> bool:
    """Whether the image is neither mirrored nor collapses at its centre."""
    centre = corners(size).mean(dim=0)
    return _MIN_AREA_RATIO < float(area_ratio(torch.tensor(homography), centre)) < inf
