"""Features of the best match of a query, from which a calibration computes its probability."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vpr_dhe.geography.distance import apart, reference_frame_of
from vpr_dhe.records import RECONSTRUCTION, Position, RankedMatch


@dataclass(frozen=True)
class CalibrationFeatures:
    """Score and similarity of a match, and the score of its rival: the next best match that shows another place.

    Scores are inliers, or similarities without a verifier.
    """

    score: float
    similarity: float
    rival_score: float

    @property
    def inputs(self) -> dict[str, float]:
        """Inputs of the logistic regression, by name.

        Scores are compressed by asinh, which grows like the logarithm for large values and is nearly linear for small
        ones: the step from 5 to 10 inliers matters more than that from 105 to 110.
        """
        score = math.asinh(self.score)
        return {"score": score, "similarity": self.similarity, "margin": score - math.asinh(self.rival_score)}


def calibration_features(matches: Sequence[RankedMatch], radius_m: float) -> CalibrationFeatures:
    """Features of the first of the matches, which are sorted best first.

    Matches within `radius_m` of it show the same place and are no rivals. A match whose distance in metres is unknown
    counts as a rival, so without positions the rival is always the second match. If all matches show one place, the
    last one is the rival. Matches that an early stop left unverified are no rivals.
    """
    best, *others = (match for match in matches if not match.skipped)
    last = others[-1] if others else best
    rival = next((match for match in others if not _near(match.position, best.position, radius_m)), last)
    return CalibrationFeatures(best.score, best.similarity, rival.score)


def _near(one: Position | None, other: Position | None, radius_m: float) -> bool:
    if reference_frame_of(one) == RECONSTRUCTION:
        return False
    distance_m = apart(one, other)
    return distance_m is not None and distance_m <= radius_m
