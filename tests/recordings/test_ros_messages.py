"""Images in messages of ROS: every encoding of a camera, and rows that are longer than their pixels."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from recordings import small_frames

from vpr_dhe.errors import DatasetError, ImageError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.recordings.ros_messages import compressed_file, pixels_of, raw_file

PIXELS = small_frames(1)[0]
GREY = PIXELS[..., 0]
ALPHA = np.zeros((64, 80, 1), np.uint8)


def message(values: np.ndarray, encoding: str, *, padding: int = 0, **fields) -> SimpleNamespace:
    rows = values.reshape(len(values), -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    known = {"height": values.shape[0], "width": values.shape[1], "step": padded.shape[1], "is_bigendian": 0}
    return SimpleNamespace(encoding=encoding, data=padded.ravel(), **(known | fields))


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "values", "expected"),
    [
        ("rgb8", PIXELS, PIXELS),
        ("bgr8", PIXELS[..., ::-1], PIXELS),
        ("rgba8", np.concatenate([PIXELS, ALPHA], -1), PIXELS),
        ("bgra8", np.concatenate([PIXELS[..., ::-1], ALPHA], -1), PIXELS),
        ("mono8", GREY, GREY),
        ("8UC1", GREY, GREY),
        ("mono16", GREY.astype("<u2") * 257, GREY.astype(np.uint16) * 257),
        ("8UC3", PIXELS[..., ::-1], PIXELS),
        ("8UC4", np.concatenate([PIXELS[..., ::-1], ALPHA], -1), PIXELS),
        ("rgb16", PIXELS.astype("<u2") * 257, PIXELS),
        ("bgr16", PIXELS[..., ::-1].astype("<u2") * 257, PIXELS),
        ("16UC1", GREY.astype("<u2") * 257, GREY.astype(np.uint16) * 257),
    ],
)
def test_pixels_are_those_of_the_message(encoding, values, expected, padding):
    found = pixels_of(message(np.ascontiguousarray(values), encoding, padding=padding))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    grey_of_16_bits = expected // 257 if expected.dtype == np.uint16 else expected
    as_rgb = grey_of_16_bits if expected.ndim == 3 else np.stack([grey_of_16_bits] * 3, -1)
    np.testing.assert_array_equal(
        decode_image(raw_file(message(np.ascontiguousarray(values), encoding, padding=padding)).content), as_rgb
    )


def test_big_endian_values_are_turned_round():
    swapped = message((GREY.astype(">u2") * 257).astype(">u2"), "mono16", is_bigendian=1)
    np.testing.assert_array_equal(pixels_of(swapped), GREY.astype(np.uint16) * 257)


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_of_one_colour_gives_that_colour(order):
    colour = {"r": 200, "g": 120, "b": 30}
    tile = np.array([[colour[order[0]], colour[order[1]]], [colour[order[2]], colour[order[3]]]], np.uint8)
    found = pixels_of(message(np.tile(tile, (16, 20)), f"bayer_{order}8"))
    np.testing.assert_array_equal(found[2:-2, 2:-2], np.broadcast_to([200, 120, 30], (28, 36, 3)))


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuyv", "yuyv")])
def test_half_the_colour_is_enough_for_one_colour(encoding, order):
    y, u, v = cv2.cvtColor(np.full((1, 1, 3), (200, 120, 30), np.uint8), cv2.COLOR_RGB2YUV)[0, 0]
    pair = np.array([{"y": y, "u": u, "v": v}[part] for part in order], np.uint8).reshape(1, 2, 2)
    found = pixels_of(message(np.tile(pair, (16, 10, 1)), encoding))
    assert found.shape == (16, 20, 3)
    assert np.ptp(found.reshape(-1, 3), axis=0).max() == 0
    assert found[0, 0, 0] > found[0, 0, 1] > found[0, 0, 2]


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@pytest.mark.parametrize("padding", [0, 6])
def test_planes_of_a_quarter_of_the_colour_give_the_image(encoding, padding):
    smooth = cv2.resize(cv2.resize(PIXELS, (8, 6)), (80, 64), interpolation=cv2.INTER_CUBIC)
    # Brightness, then a quarter of the values of either colour: OpenCV writes the latter as two planes.
    planes = cv2.cvtColor(smooth, cv2.COLOR_RGB2YUV_I420)
    blue, red = planes[64:].reshape(2, -1)
    colours = np.stack([blue, red] if encoding == "nv12" else [red, blue], axis=-1).reshape(32, 80)
    values = np.concatenate([planes[:64], colours])
    found = pixels_of(message(values, encoding, padding=padding, height=64))
    assert found.shape == (64, 80, 3)
    assert np.abs(found.astype(int) - smooth).mean() < 4
    for fields in ({"data": values[:90].ravel()}, {"height": 63}, {"width": 79}):
        with pytest.raises(ImageError, match="the message is damaged"):
            pixels_of(SimpleNamespace(**(vars(message(values, encoding, height=64)) | fields)))


def test_what_is_no_image_of_a_camera_is_refused():
    with pytest.raises(DatasetError, match="encoded as '32FC1'; expected one of rgb8"):
        pixels_of(message(GREY.astype(np.float32), "32FC1"))


@pytest.mark.parametrize("fields", [{"height": 65}, {"step": 10}, {"width": 0}, {"data": b""}])
def test_messages_that_are_too_short_are_damaged(fields):
    broken = message(PIXELS, "rgb8")
    with pytest.raises(ImageError, match="the message is damaged"):
        pixels_of(SimpleNamespace(**(vars(broken) | fields)))


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff"])
def test_compressed_images_stay_byte_for_byte(extension):
    content = cv2.imencode(extension, PIXELS)[1]
    file = compressed_file(SimpleNamespace(format="rgb8; compressed", data=content.ravel()))
    assert (file.content, file.extension) == (content.tobytes(), extension)


def test_compressed_images_of_another_kind():
    with pytest.raises(ImageError, match="'16UC1; compressedDepth' are none of JPEG, PNG, WebP and TIFF"):
        compressed_file(SimpleNamespace(format="16UC1; compressedDepth", data=np.zeros(12, np.uint8)))
