"""A discrete Bayes filter over places and the state of being at none of them.

The state is one of N places or "unknown": somewhere that was never indexed. Probability is kept place by place where
there is reason to, and as one number, spread evenly, for all places besides, so a step costs the same in a map of a
thousand images and of a million.

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
from vpr_dhe.sequences.motion import Mass, MotionModel, gathered
from vpr_dhe.sequences.odometry import Step


@dataclass(frozen=True)
class FilterSettings:
    """What is believed before any frame is seen.

    Args:
        unknown: probability that the first frame shows no place of the map.
        leave: probability that the camera leaves the map from one frame to the next.
        enter: probability that it enters it again. Angeli et al. (2008) take 0.1 for both.
        relocate: probability that it is carried to any other place: all of them are as likely.
        miss: probability that a place is missing among the candidates of a frame that shows it.
        support: how many places are followed; what the least likely others have is spread evenly.

    Raises:
        BadInputError: if a probability is not between 0 and 1, or no place is followed.
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
    """The belief of where the camera is; `predict` moves it on, `update` takes in what a frame showed.

    Probability that is followed from place to place is kept for each; what has just arrived, from the unknown or from
    anywhere, is spread evenly. Two approximations keep the belief small: what is spread evenly stays so until a frame
    lists its place, and no more than `settings.support` places are followed after a frame. With as many as there are
    places this is the exact forward recursion of a hidden Markov model.
    """

    def __init__(self, motion: MotionModel, count: int, settings: FilterSettings | None = None) -> None:
        self._motion, self._settings, self._count = motion, settings or FilterSettings(), count
        self.unknown = self._settings.unknown if count else 1.0
        self._followed = Mass(np.empty(0, np.int64), np.empty(0))
        self._even = 1.0 - self.unknown

    @property
    def followed(self) -> Mass:
        """The places that probability is kept for one by one, without what is spread evenly."""
        return self._followed

    def probability(self, places: Int64[np.ndarray, " asked"]) -> Float64[np.ndarray, " asked"]:
        """The probability of each of some places."""
        found = np.searchsorted(self._followed.places, places)
        padded = np.append(self._followed.places, -1)
        mass = np.where(padded[found] == places, np.append(self._followed.mass, 0.0)[found], 0.0)
        return mass + self._even / self._count

    def predict(self, step: Step, count: int | None = None) -> None:
        """Move the belief on to the time of the next frame; `count` is the number of places by then."""
        assert count is None or count >= self._count, "places do not go away"
        self._count = self._count if count is None else count
        if not self._count:
            return
        settings, known = self._settings, 1.0 - self.unknown
        leave, enter = _chances_of_several(settings.leave, settings.enter, step.frames)
        stay = ((1 - settings.leave) * (1 - settings.relocate)) ** step.frames
        moved = self._motion.spread(self._followed, step, self._count)
        self._followed = Mass(moved.places, stay * moved.mass)
        self.unknown = (1 - enter) * self.unknown + leave * known
        # Who did not stay all the while, and is not away now, is anywhere.
        self._even = max(1.0 - self.unknown - float(self._followed.mass.sum()), 0.0)

    def update(self, candidates: Int64[np.ndarray, " candidates"], ratios: Float64[np.ndarray, " candidates"]) -> None:
        """Take in one frame: its candidates, and how much likelier each one's evidence is at its place than elsewhere.

        To what has just arrived, somewhere among N places, being one of K candidates is evidence already: were they
        picked blindly, the chance would be K / N; a place that is not listed keeps the chance `miss`. A place that is
        followed was listed before, right or wrong, and looks alike from frame to frame: being listed again says
        nothing, and not being listed as much as the weakest evidence there is. The unknown state explains every list
        as well as the next.
        """
        assert (ratios > 0).all(), "a ratio of 0 would rule a place out for ever"
        if not len(candidates):
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
        followed = gathered([Mass(self._followed.places, self._followed.mass * factors), *arrived])
        total = float(followed.mass.sum()) + miss * left + self.unknown
        self._followed = Mass(followed.places, followed.mass / total)
        self._even, self.unknown = max(miss * left / total, 0.0), self.unknown / total
        self._prune()

    def _prune(self) -> None:
        """Spread evenly what the least likely places have, where too many are followed."""
        excess = len(self._followed.places) - self._settings.support
        if excess <= 0:
            return
        least = np.argpartition(self._followed.mass, excess)
        stay = np.sort(least[excess:])
        self._even += float(self._followed.mass[least[:excess]].sum())
        self._followed = Mass(self._followed.places[stay], self._followed.mass[stay])


def _chances_of_several(leave: float, enter: float, frames: int) -> tuple[float, float]:
    """The chances to have left, and to have entered, after several frames of which only the last is looked at.

    With many of them they approach the shares of time that are spent outside and inside, whatever came before.
    """
    total = leave + enter
    changed = 0.0 if total == 0 else (1 - (1 - total) ** frames) / total
    return leave * changed, enter * changed
