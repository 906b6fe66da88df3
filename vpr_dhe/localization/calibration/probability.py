"""Calibration: the probability that the best match shows the query's place, from its features."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.manifest import AdaptationInfo, CodecInfo, Manifest
from vpr_dhe.localization.calibration.features import CalibrationFeatures, calibration_features
from vpr_dhe.records import RankedMatch
from vpr_dhe.runtime.choices import AUTO, Adapt, RankBy
from vpr_dhe.verification.build import learned_fingerprint
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import NO_VERIFIER

# The best score among n wrong images grows only like log n.
_MAX_GROWTH = 4


@dataclass(frozen=True)
class Conditions:
    """Setup that a calibration is valid for: extractor, verifier, number of candidates, codec of the local maps.

    Args:
        fingerprint: of the extractor.
        verifier: name of the verifier.
        rerank: number of candidates that are verified, or considered without a verifier.
        learned: fingerprint of the verifier's weights; None for verifiers without weights.
        codec: that local maps are stored with; None if it does not matter, as without a verifier.
        rank_by: order of verified candidates, by which the best match is chosen.
        adaptation: name of the adaptation of the index's vectors; None if they are searched as extracted.
        stop_early: margin at which verification stopped; None where all candidates were verified. With fewer verified
            candidates, rivals are weaker.
    """

    fingerprint: str
    verifier: str
    rerank: int
    learned: str | None = None
    codec: str | None = None
    rank_by: RankBy = "inliers"
    adaptation: str | None = None
    stop_early: float | None = None

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        verifier: str,
        rerank: int,
        resources: Resources,
        rank_by: RankBy,
        *,
        adapt: Adapt = AUTO,
        stop_early: float | None = None,
    ) -> "Conditions":
        """Conditions of an index and a verifier by name, with the resources it is built from."""
        fingerprint, learned = manifest.spec.fingerprint, learned_fingerprint(verifier, resources)
        adaptation = manifest.adaptation_name if adapt == AUTO else None
        if verifier == NO_VERIFIER:
            return cls(fingerprint, verifier, rerank, learned, adaptation=adaptation)
        codec = manifest.codec and manifest.codec.name
        return cls(fingerprint, verifier, rerank, learned, codec, rank_by, adaptation, stop_early)

    def change_to(self, adaptation: AdaptationInfo | None, codec: CodecInfo | None) -> str | None:
        """Change of an index since the calibration was fitted, in words; None if it is as it was then."""
        if self.codec not in (None, codec and codec.name):
            return "compacted with another codec"
        return None if self.adaptation == (adaptation and adaptation.name) else "adapted to its map"

    def require(self, fingerprint: str, rerank: int, rank_by: RankBy, stop_early: float | None = None) -> None:
        """Raise BadInputError unless extractor, number of candidates, their order and the early stop are the same."""
        if self.verifier != NO_VERIFIER and rank_by != self.rank_by:
            raise BadInputError(
                f"the calibration is for candidates ranked by {self.rank_by}, not by {rank_by}; use that, or calibrate "
                "again"
            )
        if self.verifier != NO_VERIFIER and stop_early != self.stop_early:
            raise BadInputError(
                f"the calibration is for {_early(self.stop_early)}, not for {_early(stop_early)}; use that, or "
                "calibrate again"
            )
        if (fingerprint, rerank) != (self.fingerprint, self.rerank):
            raise BadInputError(
                f"the calibration is for model {self.fingerprint[:12]} and rerank {self.rerank}, not for "
                f"{fingerprint[:12]} and {rerank}; use those, or calibrate again"
            )

    def require_verification(self, *, verifies: bool) -> None:
        """Raise BadInputError unless there is a verifier if and only if the calibration was fitted with one."""
        was_verified = self.verifier != NO_VERIFIER
        if was_verified and not verifies:
            found = f"with verifier {self.verifier!r}, but this localizer has none"
        elif verifies and not was_verified:
            found = "without a verifier, but this localizer has one"
        else:
            return
        raise BadInputError(f"the calibration was fitted {found}; use the same, or calibrate again")


@dataclass(frozen=True)
class Calibration:
    """Model of the probability that the best match of a query shows its place.

    The logistic score z is `intercept` plus the sum of the features times their `coefficients`. The
    probability is 1 / (1 + exp(-z)) or, with `steps` of an isotonic regression, the linear interpolation between these
    pairs of z and probability.

    Args:
        conditions: setup that the calibration is valid for.
        radius_m: maximum distance of images that show the same place.
        right_share: weighted share of examples with a right best match: the probability without any features.
        examples: number of examples fitted on.
        right: number of examples with a right best match.
        images: size of the index at the time of fitting.
        intercept: of the logistic score.
        coefficients: by name of the feature.
        steps: ascending; empty for logistic regression.
    """

    conditions: Conditions
    radius_m: float
    right_share: float
    examples: int
    right: int
    images: int
    intercept: float
    coefficients: Mapping[str, float]
    steps: tuple[tuple[float, float], ...] = ()

    def is_outgrown(self, images: int) -> bool:
        """Whether an index of this many images is too large for the calibration: wrong images score higher by now."""
        return images > _MAX_GROWTH * self.images

    def probability(self, features: CalibrationFeatures) -> float:
        """Probability in [0, 1] that the match shows the query's place."""
        inputs = features.inputs
        z = self.intercept + sum(weight * inputs[name] for name, weight in self.coefficients.items())
        if not self.steps:
            return logistic(z)
        scores, probabilities = zip(*self.steps, strict=True)
        return float(np.interp(z, scores, probabilities))

    def with_probability(self, matches: Sequence[RankedMatch]) -> list[RankedMatch]:
        """The matches of one query, best first, with the probability of the best; the others get none."""
        if not matches:
            return []
        features = calibration_features(matches[: self.conditions.rerank], self.radius_m)
        return [replace(matches[0], probability=self.probability(features)), *matches[1:]]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Calibration":
        """Build a calibration from the output of `dataclasses.asdict`."""
        steps = tuple((float(score), float(probability)) for score, probability in content["steps"])
        return cls(**(content | {"conditions": Conditions(**content["conditions"]), "steps": steps}))


def _early(margin: float | None) -> str:
    return "all candidates verified" if margin is None else f"an early stop at a margin of {margin:g}"


def logistic(z: float) -> float:
    """Logistic function 1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * z))
