"""Alignment by several methods, of which the homography with the most evidence is taken.

Half of the candidate, in small blocks, is held out: no method estimates from matches there. Each homography then
rectifies the query, and mutual matches of the rectified query with the keypoints held out are counted. The winner is
refined on all of the candidate. Keypoints of two sensors seldom match: if none has the evidence, the homography of
`cross-modal` is taken, whose features do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64

from vpr_dhe.features.keypoints import Keypoints, detect_and_extract, match_keypoints
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.loading import image_size, reduced_to
from vpr_dhe.records import NOTHING_TO_MATCH, EstimatorDetails, Image, Matches, Size, Verification
from vpr_dhe.verification.estimators.asift import AsiftEstimator
from vpr_dhe.verification.estimators.base import HomographyEstimator, MatchedViews, View
from vpr_dhe.verification.estimators.cross_modal.guided_matching import CrossModalEstimator
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.estimators.poselib import PoseLibEstimator
from vpr_dhe.verification.estimators.ransac_flow import CoarseRansacFlowEstimator
from vpr_dhe.verification.estimators.robust import SEED
from vpr_dhe.verification.keypoint_refinement import count_agreeing, refine
from vpr_dhe.verification.names import MAGSAC
from vpr_dhe.verification.rescaling import PairSizes, rescaled
from vpr_dhe.verification.verifier import Verifier

DETAIL = "held_out_matches"
CELLS = "matching_cells"
_MAX_PIXELS = 300_000
# At a wrong homography there is hardly one: keypoints may match anywhere in the candidate.
_MIN_HELD_OUT = 5
_NEAR_PX = 12.0
# Blocks along the longer side of the candidate.
_BLOCKS = 32
_HALF_RADII_PX = (24.0, 4.0)
_RADII_PX = (12.0, 4.0)


@dataclass(frozen=True)
class _Halves:
    """Random half of the blocks of an image, for estimation; the rest is held out."""

    size: Size
    for_estimation: Bool[np.ndarray, "blocks blocks"]

    @classmethod
    def of(cls, size: Size) -> "_Halves":
        return cls(size, np.random.default_rng(SEED).random((_BLOCKS, _BLOCKS)) < 0.5)

    def chosen(self, points: Float64[np.ndarray, "points 2"], size: Size | None = None) -> Bool[np.ndarray, " points"]:
        """Mask of points for estimation; `size` is that of the image of the points, if it is another."""
        side_px = max(size or self.size) / _BLOCKS
        columns, rows = np.clip((points / side_px).astype(int), 0, _BLOCKS - 1).T
        return self.for_estimation[rows, columns]


class AutomaticAligner:
    """Aligns two images by keypoints, by those of simulated views, by RANSAC-Flow, and by networks.

    Args:
        networks: further estimators that need no matches.
        device: of RANSAC-Flow and the network of the package.
    """

    def __init__(self, networks: Sequence[HomographyEstimator] = (), device: str = "cpu") -> None:
        self._cross_modal = CrossModalEstimator.bundled(device)
        self._networks = (*networks, self._cross_modal)
        self._ransac_flow = CoarseRansacFlowEstimator(device=device)
        self._asift, self._verifier = AsiftEstimator(), Verifier(OpenCvEstimator(MAGSAC))

    def __call__(self, query: Image, candidate: Image) -> Verification:
        """Align two images; it fails if no homography has 5 matches held out, or 20 cells of `cross-modal`."""
        sizes = PairSizes(image_size(query), image_size(candidate))
        small = reduced_to(query, _MAX_PIXELS), reduced_to(candidate, _MAX_PIXELS)
        best = self._best(*small)
        if best.homography is None:
            return self._across_sensors(query, candidate)
        start = rescaled(best, PairSizes(*map(image_size, small)), sizes)
        keypoints = detect_and_extract(candidate)
        refined = refine(query, candidate, keypoints, start, self._verifier, _RADII_PX, min_kept=0.0)
        return replace(refined, details=best.details)

    def _across_sensors(self, query: Image, candidate: Image) -> Verification:
        """Estimate by `cross-modal`, with its own matches as evidence."""
        (found,) = Verifier(self._cross_modal).verify(View.of_image(query), [View.of_image(candidate)])
        if found.homography is None:
            return NOTHING_TO_MATCH
        return replace(found, details=EstimatorDetails(CELLS, found.score, method=self._cross_modal.name))

    def _best(self, query: Image, candidate: Image) -> Verification:
        """Estimate by each method from one half, and take what the other half agrees with most."""
        halves = _Halves.of(image_size(candidate))
        keypoints = detect_and_extract(candidate)
        chosen = halves.chosen(keypoints.points)
        half, held_out = _subset(keypoints, chosen), _subset(keypoints, ~chosen)
        best, most = NOTHING_TO_MATCH, _MIN_HELD_OUT - 1
        for name, start in self._proposals(query, candidate, keypoints, halves):
            if _are_near(best, start, image_size(query)):  # it would be refined to the same
                continue
            found = refine(query, candidate, half, start, self._verifier, _HALF_RADII_PX, min_kept=0.0)
            agreeing = 0 if found.homography is None else count_agreeing(query, candidate, held_out, found.homography)
            if agreeing > most:
                best, most = replace(found, details=EstimatorDetails(DETAIL, float(agreeing), method=name)), agreeing
        return best

    def _proposals(
        self, query: Image, candidate: Image, keypoints: Keypoints, halves: _Halves
    ) -> Iterator[tuple[str, Verification]]:
        """Names of methods, and their estimates from one half."""
        a, b = View.of_image(query), View.of_image(candidate)
        sparse = match_keypoints(detect_and_extract(query), keypoints)
        matched = {
            MAGSAC: (self._verifier.estimator, MatchedViews(a, (View.of_matches(b.frame, sparse),))),
            self._asift.name: (PoseLibEstimator(), self._asift.match(a, [b])),
            self._ransac_flow.name: (PoseLibEstimator(), self._ransac_flow.match(a, [b])),
        }
        for name, (estimator, views) in matched.items():
            yield name, _estimate_from_half(estimator, views, halves)
        for network in self._networks:
            found = network.estimate(a, [b])
            if bool(found.valid[0]):
                yield network.name, replace(NOTHING_TO_MATCH, homography=found.matrices[0].cpu().numpy())


def _estimate_from_half(estimator: HomographyEstimator, views: MatchedViews, halves: _Halves) -> Verification:
    (view,) = views.candidates
    matches = view.matches
    chosen = torch.from_numpy(halves.chosen(matches.candidate_points.numpy(), view.frame.input_size))
    half = Matches(
        matches.query_points[chosen], matches.candidate_points[chosen], matches.similarity[chosen], matches.tolerance_px
    )
    return Verifier(estimator).verify(views.query, [View.of_matches(view.frame, half)])[0]


def _are_near(a: Verification, b: Verification, size: Size) -> bool:
    """Whether both are estimates that map the corners of the query to about the same points."""
    if a.homography is None or b.homography is None:
        return False
    of_a, of_b = torch.from_numpy(a.homography), torch.from_numpy(b.homography)
    return float(mean_corner_error(of_a, of_b, corners(size))) < _NEAR_PX


def _subset(keypoints: Keypoints, chosen: Bool[np.ndarray, " keypoints"]) -> Keypoints:
    return Keypoints(keypoints.points[chosen], keypoints.descriptors[chosen])
