"""Where a camera was between the fixes of a satellite receiver."""

import math
from bisect import bisect_left
from collections.abc import Iterable

from vpr_dhe.records import GeoPosition

# Receivers give one fix a second or more; what a vehicle does in longer gaps is anybody's guess.
MAX_GAP_S = 3.0


class FixTrack:
    """Fixes in the order of their times, of which each counts once."""

    def __init__(self, fixes: Iterable[tuple[float, GeoPosition]]) -> None:
        by_time = dict(fixes)
        self._times_s = sorted(by_time)
        self._positions = [by_time[time_s] for time_s in self._times_s]

    def at(self, time_s: float) -> GeoPosition | None:
        """The position at a time, on the straight line from the fix before it to the one after it.

        It is None before the first fix, after the last, and where the two are more than three seconds apart.
        """
        after = bisect_left(self._times_s, time_s)
        if after == len(self._times_s):
            return None
        if self._times_s[after] == time_s:
            return self._positions[after]
        if after == 0:
            return None
        began_s, ended_s = self._times_s[after - 1 : after + 1]
        if ended_s - began_s > MAX_GAP_S:
            return None
        share = (time_s - began_s) / (ended_s - began_s)
        return _between(self._positions[after - 1], self._positions[after], share)

    def __len__(self) -> int:
        return len(self._times_s)


def valid_fix(latitude_deg: float, longitude_deg: float) -> GeoPosition | None:
    """A position, unless a receiver without one wrote the numbers: not finite, out of range, or exactly 0 N 0 E."""
    if not (math.isfinite(latitude_deg) and math.isfinite(longitude_deg)):
        return None
    if abs(latitude_deg) > 90 or abs(longitude_deg) > 180 or latitude_deg == longitude_deg == 0:
        return None
    return GeoPosition(latitude_deg, longitude_deg)


def _between(one: GeoPosition, other: GeoPosition, share: float) -> GeoPosition:
    """Seconds apart, two fixes are so near that the earth between them is flat."""
    latitude = one.latitude_deg + share * (other.latitude_deg - one.latitude_deg)
    # The short way round, also where that leads over 180 degrees.
    eastward = (other.longitude_deg - one.longitude_deg + 180) % 360 - 180
    return GeoPosition(latitude, (one.longitude_deg + share * eastward + 180) % 360 - 180)
