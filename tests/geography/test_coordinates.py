"""Coordinates of both systems against published ones, and there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geography.coordinates import Coordinates, coordinates_of, geo_uri
from vpr_dhe.geography.distance import apart
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition

# In both systems to a metre, as in `test_utm.py`.
CN_TOWER = GeoPosition(43 + 38 / 60 + 33.24 / 3600, -(79 + 23 / 60 + 13.7 / 3600))


def test_degrees_get_their_zone():
    found = coordinates_of(CN_TOWER)
    assert found.zone == "17T"
    assert (found.easting, found.northing) == pytest.approx((630_084.0, 4_833_438.0), abs=1.0)
    assert found[:2] == (CN_TOWER.latitude_deg, CN_TOWER.longitude_deg)


def test_a_zone_gets_its_degrees():
    found = coordinates_of(MetricPosition(630_084.0, 4_833_438.0, "UTM 17T"))
    assert (found.latitude, found.longitude) == pytest.approx((CN_TOWER.latitude_deg, CN_TOWER.longitude_deg), abs=1e-5)
    assert found[2:] == (630_084.0, 4_833_438.0, "17T")


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone"),
    [
        (0.0, 0.0, "31N"),
        (-0.1, 179.999, "60M"),
        (0.0, 180.0, "01N"),
        (60.39, 5.32, "32V"),  # Bergen, in the zone that Norway widened
        (55.9, 5.32, "31U"),
        (78.22, 15.65, "33X"),  # Longyearbyen, Svalbard
        (80.0, 8.9, "31X"),
        (83.9, 41.9, "37X"),
        (-79.9, 0.0, "31C"),
        (84.1, 0.0, None),
        (-80.1, 0.0, None),
    ],
)
def test_zones_with_their_exceptions_and_ends(latitude, longitude, zone):
    found = coordinates_of(GeoPosition(latitude, longitude))
    assert found.zone == zone
    assert (found.easting is None) == (zone is None)


@given(st.floats(-80, 84), st.floats(-180, 180))
def test_there_and_back(latitude, longitude):
    position = GeoPosition(latitude, longitude)
    there = coordinates_of(position)
    back = coordinates_of(MetricPosition(there.easting, there.northing, f"UTM {there.zone}"))
    distance_m = apart(position, GeoPosition(back.latitude, back.longitude))
    assert distance_m < 1e-3
    assert back.zone == there.zone


@pytest.mark.parametrize(
    ("reference", "northing", "south", "zone"),
    [
        ("UTM 33U", 5e6, False, "33U"),
        ("utm 5q", 2e6, False, "05Q"),
        ("UTM 33", 9_999_000.0, True, "33M"),
        ("UTM 33", 5e6, None, "33"),  # Europe, or the Southern Ocean
        ("UTM 33S", 4e6, False, "33S"),  # Sicily
        ("UTM 19S", 6.3e6, True, "19H"),  # Santiago, with an S for "south"
    ],
)
def test_hemispheres_are_told_or_left_open(reference, northing, south, zone):
    found = coordinates_of(MetricPosition(4e5, northing, reference))
    assert found.zone == zone
    assert (found.latitude and found.latitude < 0) == south


@pytest.mark.parametrize("reference", ["local", RECONSTRUCTION])
def test_other_frames_have_none(reference):
    assert coordinates_of(MetricPosition(1.0, 2.0, reference)) == Coordinates() == coordinates_of(None)
    assert geo_uri(MetricPosition(1.0, 2.0, reference)) is None


def test_a_zone_that_is_not_given_leaves_metres():
    assert coordinates_of(MetricPosition(5e5, 5e6, "UTM")) == (None, None, 5e5, 5e6, None)


def test_the_latitude_comes_first_in_an_address():
    assert geo_uri(GeoPosition(49.2, 7.5)) == "geo:49.2000000,7.5000000"
