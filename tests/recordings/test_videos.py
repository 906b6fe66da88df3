"""Videos: times of the container, upright frames, and files that are broken."""

import struct

import cv2
import numpy as np
import pytest
from recordings import small_frames, video_of

from vpr_dhe.errors import DatasetError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.recordings.videos import open_video


@pytest.fixture
def video(tmp_path):
    return video_of(tmp_path / "walk.mkv", small_frames())


def test_frames_come_without_loss_at_their_times(video):
    with open_video(video) as source:
        assert (source.name, source.announced_frames, source.keeps_unix_time) == ("walk", 12, False)
        found = [(frame.time_s, decode_image(frame.image().content)) for frame in source.frames()]
    assert [time_s for time_s, _ in found] == pytest.approx([0.1 * number for number in range(12)])
    np.testing.assert_array_equal([pixels for _, pixels in found], small_frames())


def test_a_variable_frame_rate_is_followed(video):
    content = video.read_bytes()
    for before_ms, after_ms in ((1100, 3000), (1000, 2750)):
        # A block of Matroska begins with its track and its time.
        before, after = (b"\x81" + struct.pack(">h", time_ms) for time_ms in (before_ms, after_ms))
        assert content.count(before) == 1
        content = content.replace(before, after)
    video.write_bytes(content)
    with open_video(video) as source:
        times_s = [frame.time_s for frame in source.frames()]
    assert times_s[-3:] == pytest.approx([0.9, 2.75, 3.0])


def test_a_phone_held_upright_gives_upright_frames(tmp_path):
    path = tmp_path / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (80, 64))
    writer.write(small_frames(1)[0])
    writer.release()

    def first_frame() -> np.ndarray:
        with open_video(path) as source:
            return decode_image(next(source.frames()).image().content)

    lying = first_frame()
    content = bytearray(path.read_bytes())
    # ISO/IEC 14496-12, 8.3.2: the matrix of a track header, here a quarter turn clockwise.
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(content)
    np.testing.assert_array_equal(first_frame(), np.rot90(lying, -1))


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "words.mp4").write_text("these are words")
    with pytest.raises(DatasetError, match=r"words.mp4 cannot be opened"), open_video(tmp_path / "words.mp4"):
        pass
    with pytest.raises(DatasetError, match="does not exist"), open_video(tmp_path / "none.mp4"):
        pass
    with pytest.raises(DatasetError, match="is not a file"), open_video(tmp_path):
        pass


def test_a_video_that_was_cut_off_ends_where_it_was_cut(video):
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    with open_video(video) as source:
        assert 0 < len(list(source.frames())) < source.announced_frames
