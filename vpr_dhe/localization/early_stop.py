"""Early stop of verification: candidates are verified in parts until the best one stands out."""

from collections.abc import Iterator, Sequence

from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.localization.robust_scores import chance_level, stabilised

SAFE_MARGIN = 8.0
"""Margin that lost hardly any recall on six sets of images; docs/experiments/early_stop.md compares others."""

# A sure query costs a tenth or a quarter of 100 candidates. More parts would make the others slower.
_PARTS = (10, 15)


def parts(count: int, shortlist_size: int | None) -> Iterator[slice]:
    """Split `count` candidates into parts that are verified together: of 100 the first 10, the next 15, then 75.

    Where a coarse pass selects from many, it takes all but the first 10 at once.
    """
    first = 0
    has_coarse_pass = shortlist_size is not None and count > shortlist_size
    for size in (*(_PARTS[:1] if has_coarse_pass else _PARTS), count):
        if first < count:
            yield slice(first, min(count, first + size))
        first += size


def stands_out(ranked: Sequence[Candidate], margin: float) -> bool:
    """Whether the best of some candidates, best first, has more inliers than chance by a margin.

    The margin is in standard deviations of Poisson counts (see `inlier_contrasts`), above the lower quartile of the
    candidates: the level of chance, unless more than three quarters of them are right.
    """
    inliers = [one.verification.inliers for one in ranked if one.verification and one.verification.attempted]
    if not inliers:
        return False
    return bool(stabilised(inliers)[0] - chance_level(inliers) >= margin)


def require_margin(margin: float | None) -> None:
    """Raise BadInputError unless the margin is None or positive."""
    if margin is not None and not margin > 0:
        raise BadInputError(
            f"stop_early is {margin}; expected a margin in standard deviations above 0, such as {SAFE_MARGIN:g}, or "
            "none to verify all candidates"
        )
