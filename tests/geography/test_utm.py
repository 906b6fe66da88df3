"""UTM against published values, and distances across its borders against those on the ground."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geography.distance import apart
from vpr_dhe.geography.neighbours import positions_within
from vpr_dhe.geography.plane import Plane
from vpr_dhe.geography.utm import Zone, from_degrees, to_degrees, zones_of
from vpr_dhe.geography.wgs84 import metres_per_degree
from vpr_dhe.records import GeoPosition, MetricPosition


def utm(latitude_deg: float, longitude_deg: float, band: str | None = None) -> MetricPosition:
    """Position in the zone of its longitude, with its band's letter unless another is given."""
    number = math.floor((longitude_deg + 180) / 6) % 60 + 1
    letter = "CDEFGHJKLMNPQRSTUVWX"[min(19, math.floor((latitude_deg + 80) / 8))] if band is None else band
    easting, northing = from_degrees(GeoPosition(latitude_deg, longitude_deg), Zone(number, latitude_deg < 0))
    return MetricPosition(easting, northing, f"UTM {number:02d}{letter}")


def beside(latitude_deg: float, longitude_deg: float, east_m: float, north_m: float) -> tuple[float, float]:
    east, north = metres_per_degree(latitude_deg)
    return latitude_deg + north_m / north, (longitude_deg + east_m / east + 180) % 360 - 180


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone", "easting", "northing"),
    [
        # Parallels and meridians with closed solutions: the equator's ends, and meridian arcs on WGS84 times 0.9996
        # (quarter meridian 10 001 965.729 m; Karney 2011, section 5).
        (0.0, 3.0, Zone(31, False), 500_000.0, 0.0),
        (90.0, 3.0, Zone(31, False), 500_000.0, 0.9996 * 10_001_965.7293),
        (0.0, 0.0, Zone(31, False), 166_021.4431, 0.0),
        (-0.0, 3.0, Zone(31, True), 500_000.0, 10_000_000.0),
        # The CN Tower in Toronto, 43 38 33.24 N 79 23 13.7 W, is at 17T 630084 4833438 (to the metre).
        (43 + 38 / 60 + 33.24 / 3600, -(79 + 23 / 60 + 13.7 / 3600), Zone(17, False), 630_084.0, 4_833_438.0),
    ],
)
def test_known_values(latitude, longitude, zone, easting, northing):
    tolerance_m = 1.0 if zone.number == 17 else 1e-3
    found = from_degrees(GeoPosition(latitude, longitude), zone)
    assert found == pytest.approx((easting, northing), abs=tolerance_m)


@given(st.floats(-80, 84), st.floats(-12, 12), st.integers(1, 60), st.booleans())
def test_conversion_there_and_back(latitude, offset, number, south):
    zone = Zone(number, south)
    longitude = (zone.meridian_deg + offset + 180) % 360 - 180
    back = to_degrees(*from_degrees(GeoPosition(latitude, longitude), zone), zone)
    assert back.latitude_deg == pytest.approx(latitude, abs=1e-9)
    assert (back.longitude_deg - longitude + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("reference", "northing", "hemispheres"),
    [
        ("UTM 33U", 5e6, "n"),
        ("UTM 33N", 100.0, "n"),
        ("UTM 33M", 9_999_990.0, "s"),
        ("UTM 33", 5e6, "ns"),
        ("UTM 33", 9_999_990.0, "s"),
        ("UTM 33", 5.0, "n"),
        ("UTM 33S", 4e6, "ns"),  # Sicily, or a "south" beyond 50 degrees
        ("UTM 33s", 9_500_000.0, "s"),
        ("UTM", 5e6, ""),
        ("UTM 61", 5e6, ""),
        ("local", 5e6, ""),
    ],
)
def test_hemispheres_by_letter_and_northing(reference, northing, hemispheres):
    found = zones_of(MetricPosition(5e5, northing, reference))
    assert "".join("s" if zone.south else "n" for zone in found) == hemispheres


SPOTS = {
    "a border in the north": (49.0, 6.0),
    "a border in the south": (-34.0, 18.0),
    "Patagonia": (-51.0, -72.0),
    "the equator": (0.0, 9.0),
    "a corner": (0.0, 12.0),
    "180 degrees": (-17.0, 180.0),
}


@pytest.mark.parametrize("band", [None, "", "hemisphere"])
@pytest.mark.parametrize("spot", SPOTS)
def test_positions_across_borders_are_as_far_apart_as_on_the_ground(spot, band):
    latitude, longitude = SPOTS[spot]
    # Three, four and five metres: east, north, apart.
    west_south = beside(latitude, longitude, -1.5, -2.0)
    east_north = beside(latitude, longitude, 1.5, 2.0)
    hemispheres = [("S" if place[0] < 0 else "N") for place in (west_south, east_north)]
    bands = hemispheres if band == "hemisphere" else [band, band]
    one, other = utm(*west_south, bands[0]), utm(*east_north, bands[1])
    # The scale of UTM is within a thousandth, so a plane would not differ.
    assert apart(one, other) == pytest.approx(5.0, rel=2e-3)
    assert apart(one, GeoPosition(*east_north)) == pytest.approx(5.0, rel=2e-3)
    for radius_m, found in ((5.1, [0]), (4.9, [])):
        assert positions_within([one], [other], radius_m)[0].tolist() == found
        assert positions_within([GeoPosition(*west_south)], [other], radius_m)[0].tolist() == found
    plane = Plane.around([one, other])
    assert np.linalg.norm(np.subtract(*plane.metres([one, other]))) == pytest.approx(5.0, rel=2e-3)
    assert plane.position(*plane.metres([plane.origin])[0].tolist()) == plane.origin


def test_a_zone_alone_is_measured_in_its_plane():
    """The protocols of the field do, so published figures stay."""
    positions = [
        MetricPosition(200_000.0 + x, 5e6, reference) for x in (0.0, 25.0) for reference in ("UTM 31U", "UTM 31")
    ]
    found = positions_within(positions, positions[:2], 25.0)
    assert [rows.tolist() for rows in found] == [[0, 1, 2, 3]] * 2
    assert apart(positions[0], positions[2]) == 25.0


def test_letterless_names_find_southern_answers():
    lettered, bare = utm(-34.0, 18.9), utm(-34.0, 18.9, "")
    assert apart(lettered, bare) == 0.0
    assert [rows.tolist() for rows in positions_within([lettered, bare], [bare, lettered], 1.0)] == [[0, 1]] * 2


@given(st.data())
def test_neighbours_are_those_that_are_near_one_by_one(data):
    """The fast search agrees with the distance of each pair, for any mixture of frames."""
    places = st.tuples(
        st.sampled_from([(49.0, 6.0), (0.0, 12.0), (-34.0, 18.0)]), st.floats(-40, 40), st.floats(-40, 40)
    )

    def drawn() -> list:
        found = []
        for (latitude, longitude), east, north in data.draw(st.lists(places, min_size=1, max_size=6)):
            place = beside(latitude, longitude, east, north)
            kind = data.draw(st.sampled_from(["degrees", "utm", "letterless"]))
            found.append(GeoPosition(*place) if kind == "degrees" else utm(*place, None if kind == "utm" else ""))
        return found

    positions, centres = drawn(), drawn()
    found = positions_within(positions, centres, 25.0)
    for centre, rows in zip(centres, found, strict=True):
        distances = [apart(position, centre) for position in positions]
        # Apart from those at the very radius, where the last digit decides.
        assert {row for row, away in enumerate(distances) if away < 25.0 - 1e-6} <= set(rows.tolist())
        assert set(rows.tolist()) <= {row for row, away in enumerate(distances) if away <= 25.0 + 1e-6}


def test_an_unknown_hemisphere_is_where_the_map_is_smallest():
    """Northern latitudes would tear a street apart at the border of its zones."""
    street = [utm(*beside(-34.0, 18.0, east, 0.0), "") for east in (-30.0, -15.0, 15.0, 30.0)]
    metres = Plane.around(street).metres(street)
    steps = np.linalg.norm(np.diff(metres, axis=0), axis=1)
    np.testing.assert_allclose(steps, [15.0, 30.0, 15.0], rtol=2e-3)
