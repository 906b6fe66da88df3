"""Tracking of a camera: turns the candidates of single frames into a belief over places."""

from collections.abc import Sequence

import numpy as np

from vpr_dhe.records import RankedMatch
from vpr_dhe.sequences.bayes_filter import FilterSettings, PlaceFilter
from vpr_dhe.sequences.likelihood import ContrastLikelihood, LikelihoodModel
from vpr_dhe.sequences.motion import MotionModel, RouteMotion
from vpr_dhe.sequences.odometry import Step
from vpr_dhe.sequences.place_map import PlaceMap


class PlaceTracker:
    """Tracks a camera through the places of a map from the candidates of each frame.

    Frames are assumed to be conditionally independent given their place: thin out the frames of a camera that stands
    still or records thirty per second.

    Args:
        places: the indexed images, from `SequenceLocalizer.place_map`.
        motion: motion model; forward along the order of the images by default.
        likelihood: evidence of candidates; `ContrastLikelihood` by default.
        settings: of the filter.
    """

    def __init__(
        self,
        places: PlaceMap,
        motion: MotionModel | None = None,
        *,
        likelihood: LikelihoodModel | None = None,
        settings: FilterSettings | None = None,
    ) -> None:
        self.places = places
        self._motion, self._likelihood = motion or RouteMotion(), likelihood or ContrastLikelihood()
        self._settings = settings
        self._filter: PlaceFilter | None = None

    def follow(self, matches: Sequence[RankedMatch], step: Step, count: int | None = None) -> None:
        """Update the belief with one frame.

        Args:
            matches: all candidates considered.
            step: interval since the previous frame; ignored for the first.
            count: number of places, from the first, that can be candidates; all by default.
        """
        count = len(self.places) if count is None else count
        if self._filter is None:
            self._filter = PlaceFilter(self._motion, count, self._settings)
        else:
            self._filter.predict(step, count)
        ids = [match.id for match in matches if match.id is not None]
        assert len(ids) == len(matches), "matches of an index have ids"
        self._filter.update(self.places.places_of(ids), self._likelihood.ratios(matches))

    @property
    def unknown(self) -> float:
        """Probability that the camera is at none of the places."""
        return 1.0 if self._filter is None else self._filter.unknown

    def likeliest(self, count: int) -> list[tuple[int, float]]:
        """Ids of places with no other one around them, and the probability around each, most probable first.

        The probability of a place in a dense map is shared by many images, of which none need be the most probable one.
        """
        if self._filter is None:
            return []
        places, mass = self._filter.followed
        left = np.ones(len(places), bool)
        found: list[tuple[int, float]] = []
        # Until no place of what is left can be among them.
        while left.any() and float(mass[left].sum()) > _smallest_of_best(found, count):
            best = int(places[np.argmax(np.where(left, mass, -1.0))])
            around = np.isin(places, self._motion.around(best)) & left
            found.append((self.places.id_of(best), float(mass[around].sum())))
            left &= ~around
        return sorted(found, key=lambda place: -place[1])[:count]


def _smallest_of_best(found: Sequence[tuple[int, float]], count: int) -> float:
    """Probability of the last of the `count` most probable places; negative if there are fewer."""
    return -1.0 if len(found) < count else sorted((probability for _, probability in found), reverse=True)[count - 1]
