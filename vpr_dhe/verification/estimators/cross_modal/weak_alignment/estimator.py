"""Estimator that learns the alignment of each pair from scratch."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from vpr_dhe.records import EstimatorDetails, StartProgress, without_progress
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.guided_matching import CrossModalEstimator
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.learning import (
    Learned,
    WeakAlignmentSettings,
    learn_alignment,
)
from vpr_dhe.verification.estimators.resources import Resources

NAME = "weak-alignment"
PSEUDO_SIAMESE_NAME = "weak-alignment-pseudo"
DETAIL = "recognised_share"
# Where learning diverged, fewer than a twentieth of the patches are recognised; where it converged, most are.
_MIN_RECOGNISED = 0.1


class WeakAlignmentEstimator(HomographyEstimator):
    """Learns a descriptor and the homography on each pair, which must be roughly aligned, or begin at `start`.

    `start` is an estimator whose homographies are right but for a few per cent of the image: where it has one, learning
    begins there, without the coarsest level. Otherwise the images are laid on top of each other. A pair takes seconds
    to a minute on `device`, and is reported to `start_progress`. The detail is the share of patches that the learned
    descriptor recognises.
    """

    uses_images = True

    def __init__(
        self,
        settings: WeakAlignmentSettings,
        *,
        start: HomographyEstimator | None = None,
        device: str = "cpu",
        start_progress: StartProgress = without_progress,
    ) -> None:
        self.name = PSEUDO_SIAMESE_NAME if settings.pseudo_siamese else NAME
        self.settings, self.device, self._start_progress = settings, device, start_progress
        self._start = start

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Learn each pair; flat images, or too few recognised patches, are a failure."""
        starts = self._starts(query, candidates)
        learned = [self._learn(query, candidate, start) for candidate, start in zip(candidates, starts, strict=True)]
        shares = [0.0 if one is None else one.recognised for one in learned]
        credible = [one if share >= _MIN_RECOGNISED else None for one, share in zip(learned, shares, strict=True)]
        found = Homographies.joined([None if one is None else one.homography for one in credible])
        return replace(found, details=tuple(EstimatorDetails(DETAIL, share) for share in shares))

    def _starts(self, query: View, candidates: Sequence[View]) -> list[Float64[np.ndarray, "3 3"] | None]:
        if self._start is None:
            return [None] * len(candidates)
        found = self._start.estimate(query, candidates)
        known = zip(found.matrices.cpu(), found.valid.tolist(), strict=True)
        return [matrix.numpy() if valid else None for matrix, valid in known]

    def _learn(self, query: View, candidate: View, start: Float64[np.ndarray, "3 3"] | None) -> Learned | None:
        settings = self.settings if start is None else self.settings.from_a_start()
        progress = self._start_progress("learning", sum(settings.steps))
        return learn_alignment(query.image, candidate.image, settings, self.device, progress, start)


def build(name: str, resources: Resources) -> WeakAlignmentEstimator:
    """Build the estimator, which begins at the homographies of `cross-modal`."""
    settings = WeakAlignmentSettings(pseudo_siamese=name == PSEUDO_SIAMESE_NAME, max_seconds=resources.max_seconds)
    return WeakAlignmentEstimator(
        settings,
        start=CrossModalEstimator.bundled(resources.device),
        device=resources.device,
        start_progress=resources.start_progress,
    )
