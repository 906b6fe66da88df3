"""Mount of the camera: its pose in the base, and the base by the pose of the camera."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import apart
from vpr_dhe.integrations.ros2.cdr import Stamp
from vpr_dhe.integrations.ros2.messages import OdometryPose, StaticTransform
from vpr_dhe.integrations.ros2.mount import Mount, StaticTransforms
from vpr_dhe.integrations.ros2.sequence_source import motion_between
from vpr_dhe.records import GeoPosition, MetricPosition

# From the axes of a body (x ahead) to those of a camera's image (z ahead), as every camera driver publishes it.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
small = st.floats(-3, 3)
angles = st.floats(-3.1, 3.1)


def about_z(angle: float) -> tuple[float, float, float, float]:
    return 0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)


def transforms(*rows: tuple) -> StaticTransforms:
    tree = StaticTransforms()
    tree.update(StaticTransform(*row) for row in rows)
    return tree


def test_the_frames_of_a_robot_are_joined():
    """base_footprint above base_link, a camera on a mast that looks to the left, and its optical frame."""
    tree = transforms(
        ("base_footprint", "base_link", (0.0, 0.0, 0.1), (0.0, 0.0, 0.0, 1.0)),
        ("base_link", "mast", (1.0, 2.0, 1.5), about_z(math.pi / 2)),
        ("mast", "eye", (0.5, 0.0, 0.0), (0.0, 0.0, 0.0, 2.0)),
        ("eye", "eye_optical", (0.0, 0.0, 0.0), OPTICAL),
    )
    for base in ("base_link", "/base_footprint"):
        mount = Mount.of_optical(tree.between(base, "eye_optical"))
        assert (mount.x_m, mount.y_m, mount.yaw_rad) == pytest.approx((1.0, 2.5, math.pi / 2))
    beside = transforms(
        ("base_link", "a", (1.0, 0.0, 0.0), about_z(0)), ("base_link", "b", (0.0, 1.0, 0.0), about_z(0))
    )
    np.testing.assert_allclose(beside.between("a", "b")[:3, 3], (-1.0, 1.0, 0.0))
    assert tree.between("base_link", "gripper") is None
    circle = transforms(("a", "b", (1.0, 0.0, 0.0), about_z(0)), ("b", "a", (1.0, 0.0, 0.0), about_z(0)))
    assert circle.between("a", "c") is None


@given(small, small, st.floats(-1.4, 1.4), angles)
def test_a_pose_by_hand_is_that_of_the_transforms(x, y, pitch, yaw):
    half = pitch / 2
    body = transforms(
        ("base", "pan", (x, y, 1.0), about_z(yaw)),
        ("pan", "tilt", (0.0, 0.0, 0.0), (0.0, math.sin(half), 0.0, math.cos(half))),
        ("tilt", "optical", (0.0, 0.0, 0.0), OPTICAL),
    )
    known, given = Mount.of_optical(body.between("base", "optical")), Mount.parse(f"{x},{y},1,0.3,{pitch},{yaw}")
    assert (given.x_m, given.y_m) == pytest.approx((known.x_m, known.y_m))
    assert math.cos(given.yaw_rad - known.yaw_rad) == pytest.approx(1.0)


@given(small, small, angles, st.floats(0, 359))
def test_the_camera_of_the_base_is_the_camera(x, y, yaw, heading):
    """There and back: the base by the camera, and the camera by the base as odometry moves it."""
    mount, camera = Mount(x, y, yaw), MetricPosition(100.0, 50.0)
    towards = mount.base_heading_deg(heading)
    base = mount.base_position(camera, towards)
    again = mount.camera_pose(OdometryPose(Stamp(0, 0), base.x_m, base.y_m, math.radians(90 - towards)))
    assert (again.x_m, again.y_m) == pytest.approx((100.0, 50.0))
    assert math.cos(again.yaw_rad - math.radians(90 - heading)) == pytest.approx(1.0)
    place = GeoPosition(48.0, 2.0)
    assert apart(place, mount.base_position(place, towards)) == pytest.approx(mount.distance_m, rel=5e-3, abs=1e-3)


def test_a_camera_beside_the_base_moves_as_the_base_turns():
    """A camera 1 m ahead that looks to the left: a left turn on the spot moves it ahead, as it sees it, and left."""
    mount = Mount(1.0, 0.0, math.pi / 2)
    poses = [mount.camera_pose(OdometryPose(Stamp(0, 0), 0.0, 0.0, yaw)) for yaw in (0.0, math.pi / 2)]
    moved = motion_between(*poses)
    assert (moved.distance_m, moved.direction_deg, moved.turn_deg) == pytest.approx((math.sqrt(2), -45.0, -90.0))


def test_a_camera_that_looks_down_has_no_heading():
    down = Mount.parse("1,0,1,0,1.5707963,0")
    assert (down.yaw_rad, down.base_heading_deg(90.0)) == (None, None)
    assert Mount.parse("1,0,1,0,0,0").base_heading_deg(None) is None


@pytest.mark.parametrize("text", ["1,2,3", "a,0,0,0,0,0", "0,0,0,0,0,nan", ""])
def test_mistakes_are_said(text):
    with pytest.raises(BadInputError, match="X,Y,Z,ROLL,PITCH,YAW"):
        Mount.parse(text)
