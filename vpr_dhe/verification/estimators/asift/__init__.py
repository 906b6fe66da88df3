"""ASIFT: keypoints of simulated views, for strong changes of viewpoint; see `simulated_views`."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from vpr_dhe.features.keypoints import Keypoints
from vpr_dhe.images.loading import image_size, reduced_to
from vpr_dhe.records import Frame, Image
from vpr_dhe.verification.estimators.asift.simulated_views import detect_in_views, match_views
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, MatchedViews, View
from vpr_dhe.verification.estimators.poselib import PoseLibEstimator
from vpr_dhe.verification.estimators.resources import Resources

NAME = "asift"
_MAX_PIXELS = 250_000
_ITERATIONS = 10_000


class AsiftEstimator(HomographyEstimator):
    """Estimates by LO-RANSAC from the matches of simulated views of both images, reduced to 0.25 megapixels."""

    name = NAME
    uses_images = True
    is_coarse = True

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; fewer than four matches are a failure."""
        if not candidates:
            return Homographies.joined([])
        matched = self.match(query, candidates)
        found = PoseLibEstimator(iterations=_ITERATIONS).estimate(matched.query, matched.candidates)
        return replace(found, matched=matched)

    def match(self, query: View, candidates: Sequence[View]) -> MatchedViews:
        """Match a query with each candidate, in pixels of the reduced images."""
        frame, keypoints = _detected(query.image)
        return MatchedViews(View(frame), tuple(_matched(keypoints, view.decode()) for view in candidates))


def _matched(query: Keypoints, candidate: Image) -> View:
    frame, keypoints = _detected(candidate)
    return View.of_matches(frame, match_views(query, keypoints))


@torch.inference_mode()
def _detected(image: Image) -> tuple[Frame, Keypoints]:
    small = reduced_to(image, _MAX_PIXELS)
    return Frame(image_size(image), image_size(small)), detect_in_views(small)


def build(_name: str, _: Resources) -> AsiftEstimator:
    """Build the estimator."""
    return AsiftEstimator()
