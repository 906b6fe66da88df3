"""Map of a sequence: indexed images as places, numbered in the order of their route."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import reference_frame_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.records import RECONSTRUCTION, ImageRecord
from vpr_dhe.sequences.frame_order import natural_key, order_taken


class PlaceMap:
    """The places 0, 1, ... of a belief, one per indexed image; images added later are appended.

    Places are ordered by time if all images have one (see `order_taken` for implausible ones), otherwise by path in
    natural order (frame 9 before frame 10). The
    `newest` follow in the order given, because a frame memory relies on its recent frames being last. Each record is
    read once; only id, position and heading are kept.
    """

    def __init__(
        self, images: Iterable[tuple[int, ImageRecord]], newest: Iterable[tuple[int, ImageRecord]] = ()
    ) -> None:
        known = list(images)
        paths = [record.path for _, record in known]
        times_s = [record.timestamp_s for _, record in known if record.timestamp_s is not None]
        timed = len(times_s) == len(known)
        in_order = order_taken(paths, times_s).order if timed else sorted(range(len(known)), key=_by_name(paths))
        known = [known[number] for number in in_order]
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
        if reference_frame_of(plane.origin) == RECONSTRUCTION:
            raise BadInputError(
                "positions are those of a reconstruction, whose unit is unknown, so motion in metres is impossible; "
                "use motion along the route, or give positions in metres"
            )
        return plane.metres(self._positions)


def _by_name(paths: Sequence[str]) -> Callable[[int], list[tuple[int, str]]]:
    return lambda number: natural_key(paths[number])
