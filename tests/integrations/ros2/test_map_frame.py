"""Metres of a robot's map."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import apart
from vpr_dhe.integrations.ros2.map_frame import MapFrame
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition

ORIGIN = GeoPosition(49.0, 7.0)
NORTH, EAST = GeoPosition(49.001, 7.0), GeoPosition(49.0, 7.001)


@pytest.mark.parametrize(
    ("heading", "north", "east"), [(90, (0, 1), (1, 0)), (0, (1, 0), (0, -1)), (180, (-1, 0), (0, 1))]
)
def test_the_x_axis_has_its_heading_and_y_is_to_its_left(heading, north, east):
    frame = MapFrame.parse(f"49,7,{heading}")
    for place, direction in ((NORTH, north), (EAST, east)):
        expected = np.array(direction) * apart(ORIGIN, place)
        np.testing.assert_allclose(frame.metres(place), expected, atol=1e-3)


@given(st.floats(0, 360), st.floats(0, 360))
def test_a_yaw_points_where_a_camera_of_that_heading_drives(x_heading, heading):
    frame = MapFrame(ORIGIN, x_heading)
    angle = math.radians(heading)
    ahead = GeoPosition(49.0 + 1e-4 * math.cos(angle), 7.0 + 1e-4 * math.sin(angle) * 1.5217)
    x, y = frame.metres(ahead)
    yaw = frame.yaw_rad(heading)
    assert (x / math.hypot(x, y), y / math.hypot(x, y)) == pytest.approx((math.cos(yaw), math.sin(yaw)), abs=1e-2)


def test_an_ellipse_turns_with_the_map():
    along_north = np.diag([1.0, 9.0])
    np.testing.assert_allclose(MapFrame(ORIGIN, 0.0).covariance(along_north), np.diag([9.0, 1.0]), atol=1e-12)
    np.testing.assert_allclose(MapFrame().covariance(along_north), along_north, atol=1e-12)


def test_metres_of_the_index_are_those_of_the_map_without_an_origin():
    assert MapFrame.parse(None).metres(MetricPosition(3.0, 4.0)) == (3.0, 4.0)
    assert MapFrame.parse(None).metres(ORIGIN) is None
    assert MapFrame.parse("49,7").metres(MetricPosition(3.0, 4.0)) is None
    x, y = MapFrame.parse("49,9").metres(MetricPosition(500_000.0, 5_427_257.0, "UTM 32U"))
    assert abs(x) < 1
    assert abs(y) < 1000


@pytest.mark.parametrize("text", ["49", "49,7,90,1", "north,7", "91,0,0", "49,7,nan"])
def test_mistakes_are_said(text):
    with pytest.raises(BadInputError):
        MapFrame.parse(text)


def test_a_reconstruction_is_not_in_metres_of_the_map():
    assert MapFrame.parse(None).metres(MetricPosition(3.0, 4.0, RECONSTRUCTION)) is None
