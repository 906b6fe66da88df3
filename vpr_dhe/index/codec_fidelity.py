"""Measured fidelity of codecs, as a manifest stores it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

RULE = "order and inliers"
"""Name of the rule by which `auto` chooses, part of the keys of caches."""

MIN_ORDER_AGREEMENT = 0.98
"""Smallest order agreement of a codec that `auto` keeps."""

MAX_INLIER_DIFFERENCE = 0.02
"""Largest inlier difference of a codec that `auto` keeps."""


@dataclass(frozen=True)
class Fidelity:
    """Difference that a codec makes to verified candidates.

    Args:
        order_agreement: share in [0, 1] of pairs of candidates that keep their order; the pairs are those among a
            query's first ten without the codec whose inliers differ by more than chance.
        inlier_difference: sum of absolute differences in inliers, relative to the sum of inliers without the codec.
    """

    order_agreement: float
    inlier_difference: float

    @property
    def suffices(self) -> bool:
        """Whether `auto` may keep the codec."""
        return self.order_agreement >= MIN_ORDER_AGREEMENT and self.inlier_difference <= MAX_INLIER_DIFFERENCE


@dataclass(frozen=True)
class CodecTrials:
    """Measurements on which `auto` chose a codec.

    Args:
        verifier: name of the verifier that counted inliers.
        verifications: number of pairs of a query and a candidate.
        inliers: sum of inliers without a codec.
        stored: codec that the local maps had been stored by; None if they came from the extractor.
        fidelity: fidelity of each codec that was tried, by name.
    """

    verifier: str
    verifications: int
    inliers: int
    stored: str | None = None
    fidelity: Mapping[str, Fidelity] = field(default_factory=dict)
