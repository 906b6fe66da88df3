"""Discrete Bayes filter over the places of a map and an "unknown" state.

The state is one of N places or "unknown": somewhere that was never indexed. Individual probabilities are kept for the
places that frames have pointed to; all others share one number, spread evenly. The cost of a step is therefore the same
for a map of a thousand images and of a million.

Source: Angeli, Filliat, Doncieux and Meyer, "Fast and incremental method for loop-closure detection using bags of
visual words", IEEE T-RO 2008 (filter, virtual place); Cummins and Newman, "FAB-MAP", IJRR 2008 (places never seen); Xu,
Sünderhauf and Milford, "Probabilistic visual place recognition for hierarchical localization", RA-L 2021 (filter over
the images of a map, with odometry).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.sequences.likelihood import NO_EVIDENCE
from vpr_dhe.sequences.motion import Mass, MotionModel, sum_by_place
from vpr_dhe.sequences.odometry import Step

_NEGLIGIBLE = 1e-3
"""Probability that the camera has neither left nor been moved, below which the belief before a gap is given up."""


@dataclass(frozen=True)
class FilterSettings:
    """Prior probabilities of the filter and the size of its support.

    Args:
        unknown: probability that the first frame shows no place of the map.
        leave: probability that the camera leaves the map between two frames.
        enter: probability that it enters the map again. Angeli et al. (2008) use 0.1 for both.
        relocate: probability that it is carried to any other place, all equally likely.
        miss: probability that the candidates of a frame lack the place that it shows.
        support: number of places with a probability of their own; at least 1. The rest is spread evenly.

    Raises:
        BadInputError: if a probability is not in [0, 1], or `support` is below 1.
    """

    unknown: float = 0.5
    leave: float = 0.1
    enter: float = 0.1
    relocate: float = 0.01
    miss: float = 0.1
    support: int = 1000

    def __post_init__(self) -> None:
        shares = (self.unknown, self.leave, self.enter, self.relocate, self.miss)
        if not all(0 <= share <= 1 for share in shares) or self.support < 1:
            raise BadInputError(f"{self}: expected probabilities from 0 to 1, and at least one place to follow")


class PlaceFilter:
    """Belief over the places of a map: `predict` moves it on, `update` applies the evidence of a frame.

    Places that are tracked have a probability each; probability that arrives from "unknown" or from anywhere is spread
    evenly. Two approximations keep the belief small: evenly spread probability stays so until a frame lists its place,
    and at most `settings.support` places are tracked after a frame. With a support of all places this is the exact
    forward recursion of a hidden Markov model.

    Args:
        motion: transition model between places.
        count: number of places.
        settings: priors; defaults as in `FilterSettings`.
    """

    def __init__(self, motion: MotionModel, count: int, settings: FilterSettings | None = None) -> None:
        self._motion, self._settings, self._count = motion, settings or FilterSettings(), count
        self.unknown = self._settings.unknown if count else 1.0
        self._followed = Mass(np.empty(0, np.int64), np.empty(0))
        self._even = 1.0 - self.unknown

    @property
    def followed(self) -> Mass:
        """Tracked places and their probability, without the evenly spread share."""
        return self._followed

    def probability(self, places: Int64[np.ndarray, " places"]) -> Float64[np.ndarray, " places"]:
        """Probability of each of these places."""
        found = np.searchsorted(self._followed.places, places)
        padded = np.append(self._followed.places, -1)
        mass = np.where(padded[found] == places, np.append(self._followed.mass, 0.0)[found], 0.0)
        return mass + self._even / self._count

    def predict(self, step: Step, count: int | None = None) -> None:
        """Move the belief on to the time of the next frame; `count` is the number of places by then."""
        assert count is None or count >= self._count, "the number of places never falls"
        self._count = self._count if count is None else count
        if not self._count:
            return
        settings, known = self._settings, 1.0 - self.unknown
        leave, enter = _chances_of_several(settings.leave, settings.enter, step.frames)
        stay = ((1 - settings.leave) * (1 - settings.relocate)) ** step.frames
        if stay < _NEGLIGIBLE:  # after a long gap the camera may be at any place, and reaches too many to follow
            self._followed = Mass(np.empty(0, np.int64), np.empty(0))
        else:
            moved = self._motion.spread(self._followed, step, self._count)
            self._followed = Mass(moved.places, stay * moved.mass)
        self.unknown = (1 - enter) * self.unknown + leave * known
        # The remainder has been relocated or has just entered: it may be anywhere.
        self._even = max(1.0 - self.unknown - float(self._followed.mass.sum()), 0.0)

    def update(self, candidates: Int64[np.ndarray, " candidates"], ratios: Float64[np.ndarray, " candidates"]) -> None:
        """Apply the evidence of one frame: its candidates and the likelihood ratio of each.

        For evenly spread probability, being listed among the K candidates is evidence in itself: by chance it has the
        probability K / N, and a place that is not listed keeps the factor `miss`. A tracked place was listed before,
        rightly or wrongly, and looks alike from frame to frame: being listed again adds only its ratio, and not being
        listed counts as the weakest ratio, `NO_EVIDENCE`. The unknown state explains every list equally well.

        Args:
            candidates: places that the frame lists.
            ratios: p(evidence | the frame shows the place) / p(evidence | it shows another); positive.
        """
        assert (ratios > 0).all(), "a ratio of 0 would rule out a place forever"
        if not len(candidates):
            self._prune()
            return
        listed, miss = len(candidates) / self._count, self._settings.miss
        factors = np.full(len(self._followed.places), NO_EVIDENCE)
        order = np.argsort(candidates, kind="stable")
        rows = np.searchsorted(candidates[order], self._followed.places)
        rows = np.minimum(rows, len(candidates) - 1)
        again = candidates[order][rows] == self._followed.places
        factors[again] = ratios[order][rows[again]]
        each = self._even / self._count
        arrived = [Mass(candidates, each * ratios * (1 - miss * (1 - listed)) / listed)]
        if self._count <= self._settings.support:
            others = np.setdiff1d(np.arange(self._count), candidates)
            arrived.append(Mass(others, np.full(len(others), each * miss)))
        left = self._even - each * sum(len(part.places) for part in arrived)
        followed = sum_by_place([Mass(self._followed.places, self._followed.mass * factors), *arrived])
        total = float(followed.mass.sum()) + miss * left + self.unknown
        self._followed = Mass(followed.places, followed.mass / total)
        self._even, self.unknown = max(miss * left / total, 0.0), self.unknown / total
        self._prune()

    def _prune(self) -> None:
        """Spread the probability of the least likely tracked places evenly if there are too many."""
        excess = len(self._followed.places) - self._settings.support
        if excess <= 0:
            return
        least = np.argpartition(self._followed.mass, excess)
        stay = np.sort(least[excess:])
        self._even += float(self._followed.mass[least[:excess]].sum())
        self._followed = Mass(self._followed.places[stay], self._followed.mass[stay])


def _chances_of_several(leave: float, enter: float, frames: int) -> tuple[float, float]:
    """Probabilities to have left and to have entered after several frames.

    With many frames they approach the stationary distribution: the shares of time spent outside and inside.
    """
    total = leave + enter
    changed = 0.0 if total == 0 else (1 - (1 - total) ** frames) / total
    return leave * changed, enter * changed
