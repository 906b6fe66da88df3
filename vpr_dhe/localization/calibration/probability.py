"""A calibration: from what speaks for the best match to the probability that it shows the query's place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.manifest import Manifest
from vpr_dhe.localization.calibration.evidence import MatchEvidence, evidence_of
from vpr_dhe.records import RankedMatch
from vpr_dhe.verification.build import learned_fingerprint
from vpr_dhe.verification.estimators.registry import Resources
from vpr_dhe.verification.names import NO_VERIFIER

# The best of twice as many wrong images scores little higher: the maximum of n draws grows as slowly as a logarithm.
_OUTGROWN = 4


@dataclass(frozen=True)
class Conditions:
    """What a calibration holds for: these features, this verifier, so many candidates, maps stored in this way.

    `fingerprint` is that of the extractor, `learned` that of the weights of a verifier that has some. `rerank` is how
    many candidates are verified, or merely looked at where there is no verifier. `codec` is what local maps are stored
    with; None where nothing looks at them.
    """

    fingerprint: str
    verifier: str
    rerank: int
    learned: str | None = None
    codec: str | None = None

    @classmethod
    def of(cls, manifest: Manifest, verifier: str, rerank: int, resources: Resources) -> "Conditions":
        """The conditions of an index and a verifier by name, with what is at hand to build it from."""
        codec = None if verifier == NO_VERIFIER or manifest.codec is None else manifest.codec.name
        return cls(manifest.spec.fingerprint, verifier, rerank, learned_fingerprint(verifier, resources), codec)

    def require(self, fingerprint: str, rerank: int) -> None:
        """Raise BadInputError unless this is the extractor, and so many candidates are looked at."""
        if (fingerprint, rerank) != (self.fingerprint, self.rerank):
            raise BadInputError(
                f"the calibration is for model {self.fingerprint[:12]} and rerank {self.rerank}, not for "
                f"{fingerprint[:12]} and {rerank}; use those, or calibrate again"
            )


@dataclass(frozen=True)
class Calibration:
    """The probability that the best match of a query shows its place.

    The logistic score z of some evidence is `intercept` plus the sum of its features times their `coefficients`. Its
    probability is 1 / (1 + exp(-z)) or, with `steps` of isotonic regression, read off the straight lines between these
    pairs of z and probability.

    Args:
        conditions: what it holds for.
        radius_m: up to which distance images show one place.
        right_share: of the examples, as they were weighed, those whose best match was right: the probability of a best
            match of which nothing is known.
        examples: how many it was fitted on, and `right` how many of them had a best match that was right.
        images: how many the index held then.
        intercept: of the logistic score.
        coefficients: by the name of the feature.
        steps: ascending; none for plain logistic regression.
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
        """Whether the index has grown to this many since, so that wrong images score higher than they used to."""
        return images > _OUTGROWN * self.images

    def probability(self, evidence: MatchEvidence) -> float:
        """How likely it is that the match shows the query's place, in [0, 1]."""
        features = evidence.features
        z = self.intercept + sum(weight * features[name] for name, weight in self.coefficients.items())
        if not self.steps:
            return logistic(z)
        scores, probabilities = zip(*self.steps, strict=True)
        return float(np.interp(z, scores, probabilities))

    def judged(self, matches: Sequence[RankedMatch]) -> list[RankedMatch]:
        """The matches of one query, best first, with the probability of the best; nothing is known of the others."""
        if not matches:
            return []
        evidence = evidence_of(matches[: self.conditions.rerank], self.radius_m)
        return [replace(matches[0], probability=self.probability(evidence)), *matches[1:]]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Calibration":
        """Build one from what `dataclasses.asdict` makes of it."""
        steps = tuple((float(score), float(probability)) for score, probability in content["steps"])
        return cls(**(content | {"conditions": Conditions(**content["conditions"]), "steps": steps}))


def logistic(z: float) -> float:
    """1 / (1 + exp(-z)), of numbers of any size."""
    return 0.5 * (1.0 + math.tanh(0.5 * z))
