"""Parts of image files against crops of the decoded whole."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.errors import ImageError
from vpr_dhe.images import parts
from vpr_dhe.images.decoding import bounded_size, decode_bounded, decode_image, decode_parts
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.parts import Part
from vpr_dhe.records import Size

SIZE = Size(90, 60)
MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16")


def stored(mode: str, *, orientation: int = 1, size: Size = SIZE, kind: str | None = None) -> bytes:
    """A file with a smooth picture, so that neighbouring pixels differ little."""
    rows, columns = np.indices((size.height, size.width))
    smooth = np.stack([rows * 2.5, columns * 2, rows + columns, 255 - columns], axis=-1).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        picture = PIL.Image.fromarray(smooth[..., 0].astype(np.uint16) * 257)
    elif mode == "RGBA":
        picture = PIL.Image.fromarray(smooth, "RGBA")
    else:
        picture = PIL.Image.fromarray(smooth[..., :3]).convert(mode)
    file, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = orientation
    picture.save(file, kind or ("TIFF" if mode == "CMYK" else "PNG"), exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_parts_of_the_same_size_are_crops(mode, orientation, monkeypatch):
    monkeypatch.setattr(parts, "_STRIP_PIXELS", 400)
    content = stored(mode, orientation=orientation)
    whole = decode_image(content)
    assert image_size(whole) == (Size(60, 90) if orientation > 4 else Size(90, 60))
    first, second = decode_parts(content, [Part(7, 11, 40, 30, Size(40, 30)), Part(0, 0, 60, 60, Size(60, 60))])
    np.testing.assert_array_equal(first, whole[11:41, 7:47])
    np.testing.assert_array_equal(second, whole[:60, :60])


@given(width=st.integers(16, 90), height=st.integers(16, 60), strip=st.integers(1, 6000))
def test_strips_make_the_same_image_as_the_whole(width, height, strip):
    content = stored("RGB")
    expected = PIL.Image.fromarray(decode_image(content)).resize((width, height), PIL.Image.Resampling.BILINEAR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_STRIP_PIXELS", strip)
        (found,) = decode_parts(content, [Part(0, 0, 90, 60, Size(width, height))])
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [Size(800, 600), Size(805, 603)])
def test_a_jpeg_that_shrinks_is_decoded_small_and_stays_in_place(size, orientation):
    content = stored("RGB", size=size, kind="JPEG", orientation=orientation)
    decoded = decode_bounded(content, 12_000)
    assert decoded.original_size == image_size(decode_image(content))
    assert image_size(decoded.image) == bounded_size(decoded.original_size, 12_000)
    assert abs(decoded.image[..., 0].size - 12_000) < 300
    expected = cv2.resize(decode_image(content), image_size(decoded.image), interpolation=cv2.INTER_AREA)
    # A shift by half a pixel would change values by 3 to 8.
    assert np.abs(decoded.image[2:-2, 2:-2].astype(int) - expected[2:-2, 2:-2]).mean() < 1.5


@pytest.mark.parametrize("mode", MODES)
def test_below_the_bound_nothing_changes(mode):
    content = stored(mode)
    decoded = decode_bounded(content, 90 * 60)
    np.testing.assert_array_equal(decoded.image, decode_image(content))
    assert decoded.original_size == SIZE


def test_sixteen_bits_of_pgm_are_scaled_in_parts_too():
    content = b"P5 40 20 65535\n" + np.full((20, 40), 40_000, ">u2").tobytes()
    (part,) = decode_parts(content, [Part(3, 2, 20, 16, Size(10, 8))])
    assert (part == 156).all()
    assert part.shape == (8, 10, 3)


def test_jpegs_that_lack_their_last_bytes_are_cut_as_far_as_they_go():
    content = stored("RGB", size=Size(400, 300), kind="JPEG")
    (expected,), (found,) = (
        decode_parts(one, [Part(10, 20, 100, 80, Size(100, 80))]) for one in (content, content[:-30])
    )
    np.testing.assert_array_equal(found, expected)
    assert decode_bounded(content[:-30], 40_000).is_cut
    with pytest.raises(ImageError, match="truncated"):
        decode_bounded(content[: len(content) // 3], 1000)
