"""Images in memory follow the rules of files."""

import io
from pathlib import Path

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.errors import ImageError
from vpr_dhe.images.decoding import decode_bounded, decode_image, decode_named, decode_parts, decode_reduced
from vpr_dhe.images.loading import deep_values, require_image
from vpr_dhe.images.parts import Part
from vpr_dhe.records import Size

PIXELS = st.tuples(st.integers(16, 40), st.integers(16, 40), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(0, 256, (*drawn[:2], 3), np.uint8)
)


@settings(max_examples=20)
@given(PIXELS)
def test_all_forms_of_an_image_are_the_same_image(pixels):
    last, first = torch.from_numpy(pixels), torch.from_numpy(pixels).permute(2, 0, 1)
    opaque = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1)
    forms = {
        "array": pixels,
        "with alpha": opaque,
        "of 16 bits": pixels.astype(np.uint16) * 257,
        "mirrored in memory": np.ascontiguousarray(pixels[..., ::-1])[..., ::-1],
        "picture": PIL.Image.fromarray(pixels),
        "tensor": last,
        "channels first": first,
        "channels first, with alpha": torch.from_numpy(opaque).permute(2, 0, 1),
        "floats": first / 255,
        "floats, channels last": last.double() / 255,
        "half floats": (first / 255).half(),
        "with a gradient": (first / 255).requires_grad_(),
    }
    for form in forms.values():
        image = require_image(form)
        np.testing.assert_array_equal(image, pixels)
        assert image.flags.c_contiguous


@settings(max_examples=20)
@given(PIXELS)
def test_all_forms_of_grey_are_the_same_grey(pixels):
    grey = np.ascontiguousarray(pixels[..., 0])
    tensor = torch.from_numpy(grey)
    picture = PIL.Image.fromarray(grey)
    for form in (grey, grey[..., None], picture, tensor, tensor[None], tensor[..., None], tensor[None] / 255):
        np.testing.assert_array_equal(require_image(form), np.stack([grey] * 3, axis=-1))


@settings(max_examples=20)
@given(PIXELS, st.integers(0, 255))
def test_transparency_is_what_it_is_in_a_file(pixels, alpha):
    array = np.concatenate([pixels, np.full_like(pixels[..., :1], alpha)], axis=-1)
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "png")
    from_file = decode_image(file.getvalue())
    for form in (array, PIL.Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1) / 255):
        np.testing.assert_array_equal(require_image(form), from_file)


def test_a_picture_of_pillow_is_turned_as_its_file_is(picture, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(require_image(opened), decode_image(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (np.zeros((3, 20, 20), np.uint8), "height x width x 3"),
        (np.zeros((20, 20, 2), np.uint8), "height x width x 3"),
        (np.zeros((20, 20, 3)), "expected uint8 or uint16"),
        (np.zeros((20, 20, 3, 1), np.uint8), "height x width x 3"),
        (np.zeros((4, 20, 3), np.uint8), "at least 16"),
        (torch.zeros(2, 20, 20), "height x width x 3"),
        (torch.zeros(1, 3, 20, 20), "height x width x 3"),
        (torch.zeros(3, 20, 3), "at least 16"),
        (torch.zeros(3, 20, 20, dtype=torch.int64), "expected uint8, or floats"),
        (torch.full((3, 20, 20), 128.0), r"outside \[0, 1\]; scale it"),
        (torch.full((3, 20, 20), torch.nan), r"outside \[0, 1\]"),
        (PIL.Image.new("F", (20, 20)), "32-bit"),
        (PIL.Image.new("RGB", (20, 8)), "at least 16"),
    ],
)
def test_what_is_no_image_or_may_be_two_is_refused(given, complaint):
    with pytest.raises(ImageError, match=complaint):
        require_image(given)


@pytest.mark.parametrize("as_path", [str, Path])
def test_files_are_given_as_text_or_as_paths(picture, tmp_path, as_path):
    picture.save(tmp_path / "a.png")
    path, expected = as_path(tmp_path / "a.png"), np.asarray(picture)
    part = Part(0, 0, *picture.size, size=Size(*picture.size))
    for found in (
        decode_image(path),
        decode_named(path),
        decode_reduced(path, Size(16, 16)).image,
        decode_bounded(path, 10_000).image,
        *decode_parts(path, [part]),
    ):
        np.testing.assert_array_equal(found, expected)
    assert deep_values(path) is None
