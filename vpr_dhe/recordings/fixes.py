"""Positions of a camera, interpolated between satellite fixes."""

import math
from bisect import bisect_left
from collections.abc import Iterable

from vpr_dhe.records import GeoPosition

# Receivers give at least one fix per second; interpolation over longer gaps is unreliable.
MAX_GAP_S = 3.0


class FixTrack:
    """Track of fixes, sorted by time, without interpolation over gaps of more than `max_gap_s`."""

    def __init__(self, fixes: Iterable[tuple[float, GeoPosition]], max_gap_s: float = MAX_GAP_S) -> None:
        by_time, self._max_gap_s = dict(fixes), max_gap_s
        self._times_s = sorted(by_time)
        self._positions = [by_time[time_s] for time_s in self._times_s]

    def at(self, time_s: float) -> GeoPosition | None:
        """Interpolate the position at a time between the fixes before and after it.

        Returns None before the first fix, after the last, and in gaps that are too long.
        """
        after = bisect_left(self._times_s, time_s)
        if after == len(self._times_s):
            return None
        if self._times_s[after] == time_s:
            return self._positions[after]
        if after == 0:
            return None
        start_s, end_s = self._times_s[after - 1 : after + 1]
        if end_s - start_s > self._max_gap_s:
            return None
        share = (time_s - start_s) / (end_s - start_s)
        return _between(self._positions[after - 1], self._positions[after], share)

    def __len__(self) -> int:
        return len(self._times_s)

    @property
    def span_s(self) -> tuple[float, float]:
        """Times of the first and last fix, of which there must be one."""
        return self._times_s[0], self._times_s[-1]


def valid_fix(latitude_deg: float, longitude_deg: float) -> GeoPosition | None:
    """Make a position; None for numbers that are not finite, out of range, or exactly 0 N 0 E (no fix)."""
    if not (math.isfinite(latitude_deg) and math.isfinite(longitude_deg)):
        return None
    if abs(latitude_deg) > 90 or abs(longitude_deg) > 180 or latitude_deg == longitude_deg == 0:
        return None
    return GeoPosition(latitude_deg, longitude_deg)


def _between(one: GeoPosition, other: GeoPosition, share: float) -> GeoPosition:
    """Interpolate linearly in degrees, which is accurate over the distance of a few seconds."""
    latitude = one.latitude_deg + share * (other.latitude_deg - one.latitude_deg)
    # Along the shorter arc, also across 180 degrees.
    eastward = (other.longitude_deg - one.longitude_deg + 180) % 360 - 180
    return GeoPosition(latitude, (one.longitude_deg + share * eastward + 180) % 360 - 180)
