"""Reading image files: every pixel layout becomes upright RGB, and damaged files are refused."""

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageFile
import PIL.WebPImagePlugin
import pytest

from vpr_dhe.errors import ImageError
from vpr_dhe.geography.exif import read_exif
from vpr_dhe.images import opened
from vpr_dhe.images.decoding import decode_image, decode_reduced
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.pillow import register_heic
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import GeoPosition, ImageRecord, Size


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds only one row of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 + 3 * width))) + chunk(b"IEND", b"")


def test_rgb_is_read_as_it_is(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), np.asarray(picture))
    np.testing.assert_array_equal(decode_image((tmp_path / "a.png").read_bytes()), np.asarray(picture))


def test_greyscale_becomes_three_equal_channels(picture, tmp_path):
    picture.convert("L").save(tmp_path / "a.jpg")
    decoded = decode_image(tmp_path / "a.jpg")
    assert decoded.shape == (40, 60, 3)
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 1] == decoded[..., 2]).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_allclose(decode_image(tmp_path / "a.png")[..., 0], values / 257.0, atol=1.0)


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    PIL.Image.fromarray(np.full((40, 60), 200, np.uint16)).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png").max() <= 1


def test_cmyk_comes_out_in_its_colours(tmp_path):
    PIL.Image.new("RGB", (60, 40), (200, 30, 40)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(decode_image(tmp_path / "a.jpg")[20, 30], [200, 30, 40], atol=12)


def test_transparency_lies_over_black(tmp_path):
    PIL.Image.new("RGBA", (60, 40), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png").max() == 0


def test_palette_is_resolved(picture, tmp_path):
    picture.quantize(64).save(tmp_path / "a.png")
    np.testing.assert_allclose(decode_image(tmp_path / "a.png").astype(float), np.asarray(picture), atol=40)


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(picture, tmp_path, orientation, turns):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), np.rot90(np.asarray(picture), turns))


@pytest.mark.parametrize(
    ("side", "expected"), [((1600, 1200), (800, 600)), ((900, 700), (900, 700)), ((9000, 500), (9000, 500))]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photo_is_decoded_at_the_size_that_is_looked_at(tmp_path, side, expected, orientation):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    smooth = PIL.Image.effect_noise((20, 15), 80).convert("RGB").resize(side, PIL.Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole, reduced = decode_image(tmp_path / "a.jpg"), decode_reduced(tmp_path / "a.jpg", Size(256, 192))
    assert reduced.original_size == image_size(whole)
    assert image_size(reduced.image) == Size(*(expected if orientation == 1 else expected[::-1]))
    small = [cv2.resize(one, (256, 192), interpolation=cv2.INTER_AREA).astype(float) for one in (whole, reduced.image)]
    assert np.abs(small[0] - small[1]).mean() < 1


def test_other_formats_are_decoded_whole(picture, tmp_path):
    picture.resize((2000, 1500)).save(tmp_path / "a.png")
    assert image_size(decode_reduced(tmp_path / "a.png", Size(64, 64)).image) == Size(2000, 1500)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16", "1"])
@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
def test_large_images_of_all_formats_are_averaged_down(tmp_path, monkeypatch, extension, mode):
    if extension == "webp" and mode not in ("RGB", "RGBA"):
        pytest.skip("WebP has no such mode")
    smooth = PIL.Image.effect_noise((20, 15), 80).convert("RGB").resize((801, 602), PIL.Image.Resampling.BICUBIC)
    grey = PIL.Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257)
    options = {"lossless": True} if extension == "webp" else {}
    (grey if mode == "I;16" else smooth.convert(mode)).save(tmp_path / f"a.{extension}", **options)
    path = tmp_path / f"a.{extension}"
    whole = decode_image(path)
    np.testing.assert_array_equal(decode_reduced(path, Size(64, 48)).image, whole)
    monkeypatch.setattr(opened, "LARGE_PIXELS", 100_000)
    reduced = decode_reduced(path, Size(64, 48))
    assert (reduced.original_size, image_size(reduced.image)) == (Size(801, 602), Size(200, 150))
    small = [cv2.resize(one, (64, 48), interpolation=cv2.INTER_AREA).astype(float) for one in (whole, reduced.image)]
    assert np.abs(small[0] - small[1]).mean() < 2


def test_the_sizes_of_phones_and_panoramas_are_allowed():
    before = PIL.Image.MAX_IMAGE_PIXELS
    for side in ((12_000, 9_000), (16_384, 8_192), (16_320, 12_240)):
        with warnings.catch_warnings(action="error"):
            assert decode_reduced(png_of_size(*side), Size(64, 64)).original_size == side
        with pytest.raises(ImageError, match="more than the 100,000,000"):
            decode_image(png_of_size(*side), max_pixels=100_000_000)
    assert before == PIL.Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"these are words, not pixels", "not an image"),
        (b"", "not an image"),
        (png_of_size(20_000, 20_000), "raise --max-megapixels"),
        (png_of_size(1, 1), "at least 16"),
    ],
)
def test_what_is_no_image_is_said_to_be_none(content, complaint, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=complaint):
        decode_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_truncated_file(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    path = tmp_path / f"whole.{extension}"
    PIL.Image.fromarray(noise).save(path)
    content = path.read_bytes()
    with pytest.raises(ImageError, match="truncated"):
        decode_image(content[: len(content) // 2])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpegs_that_lack_their_last_bytes(tmp_path, options, orientation, caplog):
    rows, columns = np.indices((200, 300))
    smooth = np.stack([rows, 255 - rows, columns * 255 // 299], axis=-1).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 40, smooth.shape, np.uint8)
    path, exif = tmp_path / "a.jpg", PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    PIL.Image.fromarray(smooth // 2 + noise).save(path, exif=exif, **options)
    content, whole = path.read_bytes(), decode_image(path).astype(int)
    for cut in (1, 2, 5):
        path.write_bytes(content[:-cut])
        for read in (decode_image(path), decode_image(content[:-cut]), decode_reduced(path, Size(300, 200)).image):
            assert (abs(read - whole) > 30).mean() < 0.02
    assert caplog.messages == [f"{path}: the JPEG lacks its last bytes; it was read as far as it goes"] * 6
    assert decode_reduced(path, Size(300, 200)).is_cut
    # The last scan of a progressive file, of half its bytes, adds one bit to coefficients that are there.
    for part in (0.3, 0.1) if "progressive" in options else (0.8, 0.5, 0.1):
        with pytest.raises(ImageError):
            decode_image(content[: int(part * len(content))])


def test_a_cut_jpeg_is_indexed_with_a_warning(tmp_path, thumbnail_extractor, caplog):
    path = tmp_path / "map/a.jpg"
    path.parent.mkdir()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-2])
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, path.parent, codec="float16")
    assert index.add([ImageRecord("a.jpg")], thumbnail_extractor).added == 1
    assert caplog.messages == ["a.jpg: the JPEG lacks its last bytes; it was read as far as it goes"]


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        decode_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError):
        decode_image(tmp_path)


def test_heic_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    register_heic.cache_clear()
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 400
    (tmp_path / "a.heic").write_bytes(content)
    for source in (content, tmp_path / "a.heic"):
        with pytest.raises(ImageError, match=r'install pillow-heif with: pip install "vpr-dhe\[heic\]"'):
            decode_image(source)


def test_heic_is_decoded_upright_with_its_position():
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    register_heic.cache_clear()
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :, 0] = 200  # the upper half is red
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    exif.get_ifd(PIL.ExifTags.IFD.GPSInfo).update({1: "N", 2: (49.0, 30.0, 0.0), 3: "E", 4: (6.0, 15.0, 0.0)})
    file = io.BytesIO()
    heif.from_pillow(PIL.Image.fromarray(pixels)).save(file, exif=exif.tobytes(), quality=90)
    image = decode_image(file.getvalue())
    assert image.shape == (64, 48, 3)
    assert image[:, 40:, 0].mean() > 150  # turned clockwise by a quarter, the upper half is on the right
    assert image[:, :8, 0].mean() < 50
    assert read_exif(file.getvalue()).position == GeoPosition(49.5, 6.25)


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "QOI", "TGA", "JPEG2000", "DDS"])
def test_uncommon_formats_are_decoded(picture, kind):
    file = io.BytesIO()
    picture.convert("RGB").save(file, format=kind)
    decoded = decode_image(file.getvalue())
    assert decoded.shape == (picture.height, picture.width, 3)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        decode_image(tmp_path / "a.jpg")


def test_a_photo_with_damaged_exif_keeps_its_pixels(picture, tmp_path):
    picture.save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert decode_image(tmp_path / "a.jpg").shape == (40, 60, 3)


def test_whole_numbers_of_32_bits_have_no_known_range(tmp_path):
    PIL.Image.fromarray(np.full((40, 60), 128, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="32-bit"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_the_size_of_a_file_is_read_without_decoding_it(picture, tmp_path, monkeypatch, extension):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    upright, turned = tmp_path / f"upright.{extension}", tmp_path / f"turned.{extension}"
    picture.save(upright)
    picture.save(turned, exif=exif)

    def refuse(self: PIL.Image.Image) -> None:
        raise AssertionError(f"{self.format} was decoded")

    for kind in (PIL.ImageFile.ImageFile, PIL.WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(kind, "load", refuse)
    assert opened.size_in_file(upright) == Size(picture.width, picture.height)
    assert opened.size_in_file(turned) == Size(picture.height, picture.width)


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(picture, tmp_path, monkeypatch):
    """A small PNG may hold gigabytes of pixels."""
    picture.save(tmp_path / "a.png")
    decoded: list[PIL.Image.Image] = []

    def noted(self: PIL.Image.Image) -> None:
        decoded.append(self)

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", noted)
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        with pytest.raises(ImageError, match="more than the 100 that are decoded at most"):
            decode_image(source, max_pixels=100)
    assert not decoded


def test_large_images_of_all_formats_are_decoded_one_at_a_time(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "LARGE_PIXELS", 100)
    picture.save(tmp_path / "a.png")
    load, at_work = PIL.ImageFile.ImageFile.load, []

    def loaded(self: PIL.Image.Image) -> object:
        at_work.append(opened._large_images.locked())
        return load(self)

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", loaded)
    decode_image(tmp_path / "a.png")
    assert set(at_work) == {True}


def test_a_large_file_is_not_read_if_its_header_claims_too_many_pixels(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "_LARGE_FILE_BYTES", 100)
    picture.save(tmp_path / "a.png")
    assert opened.read_file(tmp_path / "a.png") == (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(ImageError, match="more than the 100 that are decoded"):
        opened.read_file(tmp_path / "a.png", 100)
