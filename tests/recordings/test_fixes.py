"""Positions between fixes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.recordings.fixes import MAX_GAP_S, FixTrack, valid_fix
from vpr_dhe.records import GeoPosition


def test_between_two_fixes_the_way_is_straight():
    track = FixTrack([(12.0, GeoPosition(50.0, 8.0)), (10.0, GeoPosition(49.0, 7.0))])
    found = track.at(10.5)
    assert found is not None
    assert (found.latitude_deg, found.longitude_deg) == pytest.approx((49.25, 7.25))
    assert track.at(10.0) == GeoPosition(49.0, 7.0)


def test_nothing_is_known_before_after_and_in_long_gaps():
    track = FixTrack(
        [(0.0, GeoPosition(1.0, 1.0)), (1.0, GeoPosition(1.0, 1.0)), (1.5 + MAX_GAP_S, GeoPosition(2.0, 2.0))]
    )
    assert track.at(-0.1) is None
    assert track.at(1.1) is None
    assert track.at(1.0) == GeoPosition(1.0, 1.0)
    assert track.at(9.0) is None
    assert FixTrack([]).at(0.0) is None


def test_the_short_way_leads_over_180_degrees():
    track = FixTrack([(0.0, GeoPosition(0.5, 179.9)), (1.0, GeoPosition(0.5, -179.9))])
    found = track.at(0.75)
    assert found is not None
    assert found.longitude_deg == pytest.approx(-179.95)


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(-90, 90), st.floats(-180, 180), st.floats(-0.01, 0.01))
def test_positions_stay_between_their_fixes(share, latitude, longitude, step):
    other = GeoPosition(latitude, (longitude + step + 180) % 360 - 180)
    found = FixTrack([(0.0, GeoPosition(latitude, longitude)), (1.0, other)]).at(share)
    assert found is not None
    assert found.latitude_deg == pytest.approx(latitude)
    turned = math.radians(found.longitude_deg - longitude)
    assert math.cos(turned) >= math.cos(math.radians(step)) - 1e-9


@pytest.mark.parametrize(("latitude", "longitude"), [(math.nan, 2), (91, 2), (48, 181), (0, 0), (48, math.inf)])
def test_numbers_of_a_receiver_without_a_fix(latitude, longitude):
    assert valid_fix(float(latitude), float(longitude)) is None
