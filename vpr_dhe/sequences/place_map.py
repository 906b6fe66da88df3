"""Map of a sequence: indexed images as places, numbered in the order of their route."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import world_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.records import RECONSTRUCTION, ImageRecord

_DIGITS = re.compile(r"(\d+)")


class PlaceMap:
    """The places 0, 1, ... of a belief, one per indexed image; images added later are appended.

    Places are ordered by time if all images have one, otherwise by path in natural order (frame 9 before frame 10). The
    `newest` follow in the order given, because a frame memory relies on its recent frames being last. Each record is
    read once; only id, position and heading are kept.
    """

    def __init__(
        self, images: Iterable[tuple[int, ImageRecord]], newest: Iterable[tuple[int, ImageRecord]] = ()
    ) -> None:
        known = list(images)
        timed = all(record.timestamp_s is not None for _, record in known)
        known.sort(key=lambda image: (image[1].timestamp_s or 0.0) if timed else natural_key(image[1].path))
        known += newest
        self._positions = [record.position for _, record in known]
        headings = [record.heading_deg for _, record in known]
        self.headings_deg: Float64[np.ndarray, " places"] = np.array(
            [np.nan if heading is None else heading for heading in headings], np.float64
        )
        self._ids = [id for id, _ in known]
        self._place_of = {id: place for place, id in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def append(self, id: int) -> None:
        """Append the place of a new image."""
        self._place_of[id] = len(self._ids)
        self._ids.append(id)

    def places_of(self, ids: Sequence[int]) -> Int64[np.ndarray, " _ids"]:
        """Places of these images.

        Raises:
            BadInputError: if the map lacks one of them.
        """
        unknown = [id for id in ids if id not in self._place_of]
        if unknown:
            raise BadInputError(f"image {unknown[0]} was indexed after the stream began; start the stream again")
        return np.array([self._place_of[id] for id in ids], np.int64)

    def id_of(self, place: int) -> int:
        """Image id of a place."""
        return self._ids[place]

    def positions_m(self) -> Float64[np.ndarray, "places 2"]:
        """Positions of the places in metres east and north, in one plane; NaN if unknown.

        Raises:
            BadInputError: if no image has a position, positions cannot be compared, or they are not metric.
        """
        present = [position for position in self._positions if position is not None]
        if not present:
            raise BadInputError(
                "no indexed image has a position, so motion by position is impossible; use motion along the route, or "
                "give positions with `vpr-dhe index --positions`"
            )
        plane = Plane.around(present)
        if world_of(plane.origin) == RECONSTRUCTION:
            raise BadInputError(
                "positions are those of a reconstruction, whose unit is unknown, so motion in metres is impossible; "
                "use motion along the route, or give positions in metres"
            )
        return plane.metres(self._positions)


def natural_key(path: str) -> list[tuple[int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(path)]
