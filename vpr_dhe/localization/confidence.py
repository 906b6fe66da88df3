"""Confidence in an answer, in a word."""

from typing import Literal, TypeAlias

from vpr_dhe.records import Localization

Confidence: TypeAlias = Literal["sure", "unsure", "unknown"]

MIN_SURE, MIN_UNSURE = 0.9, 0.5
"""Smallest probabilities of the best match that make an answer sure, and unsure; below, the place is unknown."""


def confidence_of(localization: Localization | None) -> Confidence | None:
    """Confidence in the best match, also if it was rejected; None if it has no probability.

    The place of a blank query is unknown.
    """
    if localization is None:
        return None
    if localization.blank:
        return "unknown"
    best = localization.matches[0] if localization.matches else localization.rejected
    if best is None or best.probability is None:
        return None
    if best.probability >= MIN_SURE:
        return "sure"
    return "unsure" if best.probability >= MIN_UNSURE else "unknown"
