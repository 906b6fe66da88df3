"""Places of GSV-Cities, with several images each."""

from collections.abc import Sequence

import numpy as np

from vpr_dhe.datasets.gsv_cities import TrainingPlace
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.training.sources.base import PairSource, TrainingGroup, TrainingPair


class PlaceImages(PairSource):
    """One group per place, of images drawn at random in each epoch; a pair is two of them.

    Args:
        name: name of the data set.
        places: places with at least `members` images each, far from each other.
        members: number of images in a group.
    """

    knows_homographies = False

    def __init__(self, name: str, places: Sequence[TrainingPlace], members: int) -> None:
        self._places, self.members = tuple(places), members
        photos = sum(len(place.images) for place in places)
        self.description = f"{name}: {len(places)} places of {photos} photos, {members} at a time"

    def __len__(self) -> int:
        return len(self._places)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Decode two images of a place."""
        group = self.group(index, random, 2)
        return TrainingPair(*group.images, places=group.places)

    def group(self, index: int, random: np.random.Generator, members: int) -> TrainingGroup:
        """Decode several images of a place."""
        place = self._places[index]
        drawn = random.choice(len(place.images), members, replace=False)
        return TrainingGroup(tuple(decode_named(place.images[row]) for row in drawn), frozenset({place.name}))
