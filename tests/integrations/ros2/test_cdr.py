"""Serialised images: equal to those of two other libraries, and to the pixels of bags."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from vpr_dhe.errors import ImageError
from vpr_dhe.images.loading import decode_pixels, load_image
from vpr_dhe.integrations.ros2.cdr import (
    CompressedImage,
    RawImage,
    Stamp,
    read_compressed,
    read_image,
    write_compressed,
    write_image,
)
from vpr_dhe.recordings.ros_messages import _ENCODINGS, compressed_file, pixels_of, raw_file
from vpr_dhe.records import GreyLevels

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)
raw_images = st.builds(
    lambda sec, nanosec, frame_id, encoding, order, data: RawImage(
        Stamp(sec, nanosec), frame_id, 3, 5, encoding, order, 7, memoryview(data)
    ),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 10**9 - 1),
    texts,
    texts,
    st.integers(0, 1),
    st.binary(max_size=40),
)


def of_bags(image: RawImage) -> bytes:
    """Serialised by rosbags."""
    stamp = TYPES["builtin_interfaces/msg/Time"](image.stamp.sec, image.stamp.nanosec)
    message = TYPES["sensor_msgs/msg/Image"](
        header=TYPES["std_msgs/msg/Header"](stamp, image.frame_id),
        height=image.height,
        width=image.width,
        encoding=image.encoding,
        is_bigendian=image.is_bigendian,
        step=image.step,
        data=np.frombuffer(image.data, np.uint8),
    )
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))


@given(raw_images)
def test_images_are_read_as_rosbags_writes_them(image):
    written = write_image(image)
    assert read_image(of_bags(image)) == read_image(written) == image
    known = of_bags(image)
    # The last byte of the header counts the padding.
    assert (written[4 : len(known)], len(written) % 4) == (known[4:], 0)


def test_compressed_images_are_read_as_rosbags_writes_them():
    stamp = TYPES["builtin_interfaces/msg/Time"](5, 6)
    message = TYPES["sensor_msgs/msg/CompressedImage"](
        header=TYPES["std_msgs/msg/Header"](stamp, "eye"), format="jpeg", data=np.arange(7, dtype=np.uint8)
    )
    known = bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/CompressedImage"))
    image = CompressedImage(Stamp(5, 6), "eye", "jpeg", memoryview(bytes(range(7))))
    assert read_compressed(known) == read_compressed(write_compressed(image)) == image


def test_both_byte_orders_and_both_versions_are_read():
    image = RawImage(Stamp(1, 2), "a", 3, 4, "mono8", 0, 4, memoryview(b"abcdefghijkl"))
    little = write_image(image)
    assert read_image(bytes((0, 7)) + little[2:]) == image
    big = b"\0\0\0\0" + b"".join(
        (
            (1).to_bytes(4, "big"),
            (2).to_bytes(4, "big"),
            (2).to_bytes(4, "big") + b"a\0\0\0",
            (3).to_bytes(4, "big"),
            (4).to_bytes(4, "big"),
            (6).to_bytes(4, "big") + b"mono8\0",
            b"\0\0" + (4).to_bytes(4, "big"),
            (12).to_bytes(4, "big") + b"abcdefghijkl",
        )
    )
    assert read_image(big) == image


@given(raw_images, st.data())
def test_what_is_cut_is_damaged(image, data):
    whole = write_image(image)
    end = data.draw(st.integers(0, len(whole) - 5))
    with pytest.raises(ImageError):
        read_image(whole[:end])
    with pytest.raises(ImageError, match="expected the header of CDR"):
        read_image(b"\0\3" + whole[2:])


def test_the_wheel_agrees():
    idl = pytest.importorskip("vpr_dhe.integrations.ros2.idl", reason="no cyclonedds; pip install vpr-dhe[ros2]")
    image = RawImage(Stamp(1, 2), "eye", 2, 3, "mono8", 0, 3, memoryview(b"abcdef"))
    message = idl.Image(idl.Header(idl.Time(1, 2), "eye"), 2, 3, "mono8", 0, 3, list(b"abcdef"))
    assert read_image(message.serialize(use_version_2=False)) == image
    assert idl.Image.deserialize(write_image(image)) == message


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_pixels_are_those_of_a_bag(encoding):
    """The same message, read from a topic and from a bag."""
    layout = _ENCODINGS[encoding]
    rng = np.random.default_rng(1)
    height, width = 18, 20
    step = width * layout.channels * layout.bytes_per_value + 4
    rows = height * 3 // 2 if layout.half_colour else height
    data = rng.integers(0, 256, rows * step, np.uint8).tobytes()
    image = RawImage(Stamp(1, 2), "eye", height, width, encoding, 1, step, memoryview(data))
    from_bag = STORE.deserialize_cdr(of_bags(image), "sensor_msgs/msg/Image")
    from_topic = read_image(write_image(image))
    np.testing.assert_array_equal(pixels_of(from_topic), pixels_of(from_bag))
    levels = GreyLevels(0, 65535)
    stored = load_image(decode_pixels(raw_file(from_bag).content), levels)
    np.testing.assert_array_equal(load_image(pixels_of(from_topic), levels), stored)
    file = raw_file(from_topic)
    message = CompressedImage(Stamp(1, 2), "eye", "png", memoryview(file.content))
    assert compressed_file(read_compressed(write_compressed(message))) == file


def test_a_megapixel_is_not_copied():
    data = bytes(3_000_000)
    message = write_image(RawImage(Stamp(0, 0), "", 1000, 1000, "rgb8", 0, 3000, memoryview(data)))
    read = read_image(message)
    assert read.data.obj is message
    assert np.shares_memory(np.frombuffer(read.data, np.uint8), np.frombuffer(message, np.uint8))
