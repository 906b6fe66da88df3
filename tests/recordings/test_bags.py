"""Bags of both releases of ROS: pixels, times and positions come out as they were written."""

import sys

import numpy as np
import pytest
from recordings import BAG_NAMES, FIXES, IMAGES, START_NS, Bag, bag_of, small_frames

from vpr_dhe.errors import DatasetError, MissingExtraError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.recordings.bags import open_bag

START_S = START_NS / 1e9


@pytest.mark.parametrize("name", BAG_NAMES)
def test_frames_come_with_their_pixels_times_and_positions(tmp_path, name):
    frames = small_frames(4)
    with open_bag(bag_of(tmp_path / name, frames), IMAGES, FIXES) as source:
        assert source.announced_frames == 4
        assert source.name == f"{name.removesuffix('.bag')}/camera_image_raw"
        found = list(source.frames())
        pixels = [decode_image(frame.image().content) for frame in found]
    np.testing.assert_array_equal(pixels, frames)
    assert [frame.time_s - START_S for frame in found] == [0, 0.5, 1, 1.5]
    latitudes = [frame.position and frame.position.latitude_deg for frame in found]
    # Half-way between two fixes; nothing after the last.
    assert latitudes[:3] == pytest.approx([48.0, 48.00005, 48.0001], abs=1e-12)
    assert latitudes[3] is None


def test_what_is_read_of_a_bag_tells_it_from_others(tmp_path):
    identities = set()
    for name, topics in (("a.bag", (IMAGES, FIXES)), ("a.bag", (IMAGES,)), ("b.bag", (IMAGES,))):
        path = tmp_path / name
        with open_bag(path if path.exists() else bag_of(path, small_frames(2)), *topics) as source:
            identities.add(source.identity)
    assert len(identities) == 3


def test_one_file_of_a_bag_is_enough(tmp_path):
    folder = bag_of(tmp_path / "drive-mcap", small_frames(2))
    with open_bag(folder / "drive-mcap.mcap", IMAGES) as source:
        assert [frame.position for frame in source.frames()] == [None, None]


def test_a_header_without_a_time_leaves_that_of_the_recording(tmp_path):
    bag = Bag(tmp_path / "drive.bag")
    bag.image(0, small_frames(1)[0])
    with open_bag(bag.write(), IMAGES) as source:
        assert next(source.frames()).time_s == pytest.approx(0.04)


def test_receivers_without_a_fix_say_nothing(tmp_path):
    bag = Bag(tmp_path / "drive.bag")
    for second, (latitude, longitude, status) in enumerate([(48, 2, 0), (10, 10, -1), (np.nan, 2, 0), (0, 0, 0)]):
        bag.image(START_NS + second * 10**9, small_frames(1)[0])
        bag.fix(START_NS + second * 10**9, float(latitude), float(longitude), status)
    with open_bag(bag.write(), IMAGES, FIXES) as source:
        assert [frame.position is not None for frame in source.frames()] == [True, False, False, False]


@pytest.mark.parametrize(
    ("topic", "fix_topic", "complaint"),
    [
        ("/none", None, "has no topic /none; topics with images: /camera/image_raw, /camera/right"),
        (FIXES, None, r"has sensor_msgs/msg/NavSatFix on /gps/fix; topics with images: /camera/image_raw"),
        (IMAGES, IMAGES, "topics with fixes: /gps/fix"),
    ],
)
def test_topics_that_are_not_there_are_answered_with_those_that_are(tmp_path, topic, fix_topic, complaint):
    bag = Bag(tmp_path / "drive-db3")
    for name in (IMAGES, "/camera/right"):
        bag.image(START_NS, small_frames(1)[0], topic=name)
    bag.fix(START_NS, 48.0, 2.0)
    with pytest.raises(DatasetError, match=complaint), open_bag(bag.write(), topic, fix_topic):
        pass


def test_a_bag_without_messages(tmp_path):
    for name in BAG_NAMES:
        with (
            pytest.raises(DatasetError, match="no topic of it has images"),
            open_bag(Bag(tmp_path / name).write(), "/a"),
        ):
            pass


def test_damaged_and_unindexed_bags_end_in_one_sentence(tmp_path):
    frames = small_frames(3)
    path = bag_of(tmp_path / "drive.bag", frames)
    content = path.read_bytes()
    empty, words = tmp_path / "empty.bag", tmp_path / "words.mcap"
    empty.touch()
    words.write_text("these are words")
    unindexed = bytearray(content)
    place = unindexed.index(b"index_pos=") + len("index_pos=")
    unindexed[place : place + 8] = bytes(8)
    for name, bytes_of in (("cut.bag", content[: len(content) // 2]), ("unindexed.bag", bytes(unindexed))):
        (tmp_path / name).write_bytes(bytes_of)
    folder = bag_of(tmp_path / "drive-db3", frames)
    (folder / "metadata.yaml").unlink()
    (tmp_path / "drive.db3").write_bytes((folder / "drive-db3.db3").read_bytes()[:5000])
    damaged = [empty, words, tmp_path / "cut.bag", tmp_path / "unindexed.bag", folder, tmp_path / "drive.db3"]
    for path in damaged:
        with pytest.raises(DatasetError, match=r"cannot be read .*reindex"), open_bag(path, IMAGES) as source:
            list(source.frames())
    with pytest.raises(DatasetError, match="does not exist"), open_bag(tmp_path / "none.bag", IMAGES):
        pass


def test_damage_in_the_middle_of_a_bag_is_noticed_when_it_is_reached(tmp_path):
    bag = Bag(tmp_path / "drive.bag", compressed=True)
    for number, pixels in enumerate(small_frames(3)):
        bag.image(START_NS + number, pixels)
    path = bag.write()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with open_bag(path, IMAGES) as source, pytest.raises(DatasetError, match="cannot be read"):
        list(source.frames())


def test_without_rosbags_the_install_line_is_given(tmp_path, monkeypatch):
    path = bag_of(tmp_path / "drive.bag", small_frames(1))
    for name in [name for name in sys.modules if name.startswith("rosbags")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(MissingExtraError, match=r'pip install "vpr-dhe\[bags\]"'), open_bag(path, IMAGES):
        pass
