"""Positions for maps and trajectories, read back by parsers of their own."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geography.plane import Plane
from vpr_dhe.recordings.gpx import read_track
from vpr_dhe.records import (
    Belief,
    GeoPosition,
    Localization,
    MetricPosition,
    PlaceBelief,
    PositionEstimate,
    RankedMatch,
    Timing,
)
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.report.tables.positions import POSITION_FORMATS, query_position, yaw_rad

SCHEMA = "{http://www.topografix.com/GPX/1/1}"


def answer(name, estimate=None, match=None, *, time_s=None, heading_deg=None, belief=None, **fields) -> Answer:
    found = estimate and PositionEstimate(estimate, np.diag([4.0, 9.0]), 3, heading_deg)
    matches = (RankedMatch(1, "a.jpg", 0.5, 12.0, None, match, 0.75),)
    localization = Localization(matches, Timing(1.0, 1.0, 1.0), estimate=found, **fields)
    return Answer(name, localization, belief=belief, timestamp_s=time_s)


def written(name: str, *answers: Answer, unix_times: bool = True) -> str:
    sheet = AnswerSheet("index", "model", "magsac", answers, unix_times=unix_times)
    return POSITION_FORMATS[name].document(sheet)


def believed(position, probability=0.9) -> Belief:
    return Belief((PlaceBelief("b.jpg", probability, position),), 1 - probability)


def test_the_position_of_a_query_is_its_estimate_or_that_of_its_match():
    estimate, match = MetricPosition(3.0, 4.0), MetricPosition(9.0, 9.0)
    assert query_position(answer("q", estimate, match)).position == estimate
    assert query_position(answer("q", None, match)).position == match
    for unknown in (Answer("q", error="?"), answer("q", None, None)):
        assert query_position(unknown) is None
    assert query_position(answer("q", estimate, match, blank=True)) is None
    assert query_position(answer("q", estimate, match, known=False)) is None


def test_in_a_sequence_the_belief_decides_on_the_place():
    near, far = MetricPosition(3.0, 4.0), MetricPosition(300.0, 4.0)
    frame = answer("q", near, near, heading_deg=90.0, belief=believed(MetricPosition(0.0, 0.0)))
    assert (query_position(frame).position, query_position(frame).heading_deg) == (near, 90.0)
    elsewhere = query_position(replace(frame, belief=believed(far)))
    assert (elsewhere.position, elsewhere.heading_deg, elsewhere.estimate) == (far, None, None)
    assert query_position(replace(frame, belief=believed(near, 0.2))) is None


def test_geojson_has_the_longitude_first_and_leaves_out_unknown_places():
    answers = (
        answer("q 1.jpg", GeoPosition(49.25, 7.125), time_s=5.5),
        answer("utm", MetricPosition(500_000.0, 5_000_000.0, "UTM 32T")),
        answer("local", MetricPosition(1.0, 2.0)),
        Answer("bad", error="?"),
    )
    document = json.loads(written("geojson", *answers))
    assert document["type"] == "FeatureCollection"
    degrees, utm = document["features"]
    assert degrees["geometry"] == {"type": "Point", "coordinates": [7.125, 49.25]}
    shown = {key: degrees["properties"][key] for key in ("query", "timestamp_s", "probability", "semi_axes_m")}
    assert shown == {"query": "q 1.jpg", "timestamp_s": 5.5, "probability": 0.75, "semi_axes_m": [3.0, 2.0]}
    assert utm["geometry"]["coordinates"] == pytest.approx([9.0, 45.15345], abs=1e-4)
    lacks = POSITION_FORMATS["geojson"].lacks
    assert [lacks(one) is None for one in answers] == [True, True, False, False]


def test_gpx_is_read_back_as_a_track(tmp_path):
    times = (1_700_000_000.0, 1_700_000_001.0, 1_700_000_002.0)
    places = [GeoPosition(49.0 + number / 1e4, 7.0) for number in range(3)]
    answers = [
        answer(f"<{n}> & co", place, time_s=time_s) for n, (place, time_s) in enumerate(zip(places, times, strict=True))
    ]
    (tmp_path / "way.gpx").write_text(written("gpx", *answers, answer("photo", GeoPosition(1.0, 2.0))))
    track = read_track(tmp_path / "way.gpx")
    for time_s, place in zip(times, places, strict=True):
        found = track.at(time_s)
        assert (found.latitude_deg, found.longitude_deg) == pytest.approx((place.latitude_deg, 7.0), abs=1e-7)
    root = ElementTree.parse(tmp_path / "way.gpx").getroot()
    assert [child.tag for child in root] == [f"{SCHEMA}wpt", f"{SCHEMA}trk"]
    assert [name.text for name in root.iter(f"{SCHEMA}name")] == ["photo", "<0> & co", "<1> & co", "<2> & co"]


def trajectory(text: str) -> np.ndarray:
    """Rows of time, x, y, z and a quaternion (x, y, z, w), as the format is defined."""
    return np.array([line.split() for line in text.splitlines() if not line.startswith("#")], float)


def test_tum_has_metres_and_the_viewing_direction():
    rows = trajectory(
        written(
            "tum",
            answer("q", MetricPosition(3.0, 4.0), time_s=1.5, heading_deg=0.0),
            answer("q", MetricPosition(5.0, 4.0), time_s=2.5),
            answer("q", MetricPosition(5.0, 4.0)),
            Answer("q", error="?", timestamp_s=3.0),
        )
    )
    np.testing.assert_allclose(rows[:, :4], [[1.5, 3, 4, 0], [2.5, 5, 4, 0]])
    # North is a quarter turn from east, the x axis.
    np.testing.assert_allclose(rows[:, 4:], [[0, 0, math.sqrt(0.5), math.sqrt(0.5)], [0, 0, 0, 1]], atol=1e-6)


def test_tum_has_utm_for_degrees_in_one_zone():
    places = [GeoPosition(49.0, 5.9999), GeoPosition(49.0, 6.0001)]
    rows = trajectory(written("tum", *(answer("q", place, time_s=float(n)) for n, place in enumerate(places))))
    assert np.linalg.norm(rows[1, 1:3] - rows[0, 1:3]) == pytest.approx(14.6, abs=0.1)
    expected = Plane(MetricPosition(0.0, 0.0, "UTM 31U"), Plane.around([MetricPosition(5e5, 5e6, "UTM 31U")]).zone)
    np.testing.assert_allclose(rows[:, 1:3], expected.metres(places), atol=1e-3)


def test_evo_reads_tum(tmp_path):
    files = pytest.importorskip("evo.tools.file_interface", reason="no evo; pip install evo")
    (tmp_path / "way.tum").write_text(
        written(
            "tum", *(answer("q", MetricPosition(float(n), 2.0), time_s=float(n), heading_deg=90.0) for n in range(3))
        )
    )
    read = files.read_tum_trajectory_file(str(tmp_path / "way.tum"))
    assert read.check()[0]
    np.testing.assert_allclose(read.positions_xyz, [[0, 2, 0], [1, 2, 0], [2, 2, 0]])
    np.testing.assert_allclose(read.orientations_quat_wxyz, [[1, 0, 0, 0]] * 3)


@given(st.floats(-720, 720))
def test_a_yaw_points_where_the_heading_does(heading_deg):
    yaw, heading = yaw_rad(heading_deg), math.radians(heading_deg)
    assert -math.pi <= yaw <= math.pi
    assert (math.cos(yaw), math.sin(yaw)) == pytest.approx((math.sin(heading), math.cos(heading)), abs=1e-9)


def test_gpx_has_no_times_that_count_from_the_start_of_a_video():
    frame = answer("v", GeoPosition(1.0, 2.0), time_s=0.0)
    assert "<time>1970-01-01T00:00:00" in written("gpx", frame)
    timeless = written("gpx", frame, unix_times=False)
    assert "<trkpt" in timeless
    assert "<time>" not in timeless


def test_an_estimate_far_from_the_best_match_is_not_the_position_of_its_probability():
    estimate, match = MetricPosition(900.0, 4.0), MetricPosition(9.0, 9.0)
    found = query_position(answer("q", estimate, match, heading_deg=90.0))
    assert (found.position, found.heading_deg, found.estimate) == (match, None, None)
