"""Distances between positions, in words."""

import pytest

from vpr_dhe.geography.distance import distance
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition


def test_positions_of_one_plane_are_apart_and_others_are_not_compared():
    here, there = MetricPosition(0.0, 0.0, "UTM 32U"), MetricPosition(3.0, 4.0, "UTM 32")
    assert distance(here, there) == "5.0 m away"
    assert distance(here, MetricPosition(3.0, 4.0)) is None
    assert distance(here, None) is None
    assert distance(MetricPosition(0.0, 0.0), GeoPosition(49.0, 7.0)) is None
    assert distance(MetricPosition(0.0, 0.0), MetricPosition(3.0, 4.0)) == "5.0 m away"
    # A reconstruction's unit may be anything.
    world = [MetricPosition(x, y, RECONSTRUCTION) for x, y in ((0.0, 0.0), (3.0, 4.0))]
    assert distance(*world) == "5.0 away"
    assert distance(world[0], MetricPosition(0.0, 0.0)) is None


def test_degrees_are_apart_by_the_way_on_the_ground():
    words = distance(GeoPosition(49.0, 7.0), GeoPosition(49.001, 7.0))
    assert words is not None
    # A thousandth of a degree of the meridian at 49 degrees north.
    assert float(words.removesuffix(" m away")) == pytest.approx(111.2, abs=0.1)
