"""Videos with a GPX track: positions by time, and the time when the video starts."""

import re
import struct
from pathlib import Path

import pytest
from recordings import small_frames, video_of

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.recordings.gpx import iso_time, read_track, unix_time_s
from vpr_dhe.recordings.videos import open_video

START_S = unix_time_s("2026-05-01T10:30:00Z")


def gpx(path: Path, points: list[tuple[float, float, str]], version: int = 1) -> Path:
    rows = "".join(f'<trkpt lat="{lat}" lon="{lon}"><ele>3</ele>{time}</trkpt>' for lat, lon, time in points)
    namespace = f'xmlns="http://www.topografix.com/GPX/1/{version}"'
    path.write_text(f'<?xml version="1.0"?><gpx {namespace}><trk><trkseg>{rows}</trkseg></trk></gpx>')
    return path


def at(seconds: float) -> str:
    return f"<time>{iso_time(START_S + seconds)}</time>"


@pytest.fixture
def track(tmp_path) -> Path:
    """A camera that goes north by a thousandth of a degree each second, with a gap."""
    points = [(49 + seconds / 1000, 7.0, at(seconds)) for seconds in (0, 1, 2, 10, 100)]
    return gpx(tmp_path / "ride.gpx", [*points, (1.0, 1.0, ""), (95.0, 7.0, at(5)), (2.0, 2.0, "<time>noon</time>")])


@pytest.mark.parametrize("version", [0, 1])
def test_positions_are_interpolated_by_time(tmp_path, track, version):
    if version == 0:
        track = gpx(tmp_path / "old.gpx", [(49.0, 7.0, at(0)), (49.01, 7.0, at(10))], version=0)
    found = read_track(track)
    position = found.at(START_S + 4)
    assert (position.latitude_deg, position.longitude_deg) == (pytest.approx(49.004), 7.0)
    assert found.span_s[0] == START_S
    assert found.at(START_S - 1) is found.at(START_S + 60) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [("not xml", "is not GPX"), ("<gpx/>", "no point with a time"), ('<gpx><wpt lat="1" lon="2"/></gpx>', "no point")],
)
def test_what_is_no_track_is_said(tmp_path, content, reason):
    (tmp_path / "a.gpx").write_text(content)
    with pytest.raises(DatasetError, match=reason):
        read_track(tmp_path / "a.gpx")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_track(tmp_path / "none.gpx")


@pytest.mark.parametrize("text", ["2026-05-01T10:30:00", "2026-05-01T12:30:00+02:00", "2026-05-01 10:30:00.000Z"])
def test_times_are_in_utc_unless_they_say_otherwise(text):
    assert unix_time_s(text) == START_S == 1_777_631_400
    assert iso_time(START_S) == "2026-05-01T10:30:00.000Z"


def with_creation_time(video: Path, time_s: int) -> None:
    content = bytearray(video.read_bytes())
    place = content.index(b"mvhd") + 8
    content[place : place + 4] = struct.pack(">I", time_s + 2_082_844_800)
    video.write_bytes(content)


def test_a_video_starts_where_the_track_does_or_as_said(tmp_path, track):
    video = video_of(tmp_path / "walk.mkv", small_frames())
    with open_video(video, track) as source:
        assert source.keeps_unix_time
        assert "taken to be that of the first point of ride.gpx" in source.notes[0]
        frames = list(source.frames())
    assert [frame.time_s - START_S for frame in frames] == pytest.approx(
        [0.1 * number for number in range(12)], abs=1e-5
    )
    assert frames[10].position.latitude_deg == pytest.approx(49.001)
    with open_video(video, track, "2026-05-01T12:30:08+02:00") as source:
        assert next(iter(source.frames())).position.latitude_deg == pytest.approx(49.008)
        assert source.identity.endswith("positions by ride.gpx from 2026-05-01T10:30:08.000Z)")
    with (
        pytest.raises(BadInputError, match=r"goes from 2026-05-01T10:30:00\.000Z to"),
        open_video(video, track, "2026-05-02"),
    ):
        pass
    with pytest.raises(BadInputError, match="expected ISO 8601"), open_video(video, track, "noon"):
        pass


def test_the_creation_time_of_an_mp4_counts_if_it_is_within_the_track(tmp_path, track):
    video = video_of(tmp_path / "walk.mp4", small_frames())
    for time_s, latitude, source_of_time in ((int(START_S) + 2, 49.002, "in its header"), (1, 49.0, "first point")):
        with_creation_time(video, time_s)
        with open_video(video, track) as source:
            assert next(iter(source.frames())).position.latitude_deg == pytest.approx(latitude, abs=1e-6)
            assert re.search(source_of_time, source.notes[0])
    with open_video(video) as source:
        assert (source.notes, source.keeps_unix_time) == ((), False)
