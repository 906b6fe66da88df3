"""Every kind of image file that people have, good and bad."""

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
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError, ImageError, ListingError
from vpr_dhe.geography.exif import read_exif
from vpr_dhe.images import (
    decode_bounded,
    decode_image,
    decode_named,
    decode_parts,
    decode_reduced,
    deep_values,
    image_size,
    list_images,
    require_image,
    survey_images,
    to_network_input,
)
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import RESIZE_8_BIT, GeoPosition, ImageRecord, Preprocessing, Size
from vpr_dhe.runtime import image_decoding
from vpr_dhe.runtime.image_parts import Part
from vpr_dhe.runtime.pillow import register_heic


@pytest.fixture
def picture() -> PIL.Image.Image:
    rows, columns = np.indices((40, 60))
    return PIL.Image.fromarray(np.stack([rows * 6, columns * 4, rows + columns], axis=-1).astype(np.uint8))


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
    monkeypatch.setattr(image_decoding, "LARGE_PIXELS", 100_000)
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


def test_large_arrays_give_nearly_the_same_input_in_less_memory(monkeypatch):
    smooth = PIL.Image.effect_noise((20, 15), 80).convert("RGB").resize((801, 602), PIL.Image.Resampling.BICUBIC)
    preprocessing = Preprocessing(64, 48, "bilinear", True, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    inputs = []
    for large in (10**9, 100_000):
        monkeypatch.setattr(image_decoding, "LARGE_PIXELS", large)
        inputs.append(to_network_input([np.asarray(smooth)], preprocessing, torch.device("cpu")))
    assert float((inputs[0] - inputs[1]).abs().mean()) < 0.02


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


def test_listing_is_sorted_recursive_and_ignores_what_is_hidden(picture, tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.jpeg", ".hidden/d.png", "sub/.e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name, format="png")
    (tmp_path / "notes.txt").write_text("no image")
    assert list_images(tmp_path) == ["a.png", "b.JPG", "sub/c.jpeg"]


def test_listing_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        list_images(tmp_path / "none")
    with pytest.raises(BadInputError, match="holds no images"):
        list_images(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="is a file"):
        list_images(tmp_path / "file")


def test_listing_warns_of_photos_left_out(picture, tmp_path, caplog):
    picture.save(tmp_path / "a.png")
    (tmp_path / "a.cr2").touch()
    assert list_images(tmp_path) == ["a.png"]
    assert caplog.messages == [f"{tmp_path}: left out 1 .cr2, such as a.cr2"]


def test_listing_half_a_folder_is_an_error(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    (tmp_path / "drive").symlink_to(tmp_path / "unplugged")
    with pytest.raises(ListingError, match="drive cannot be listed"):
        list_images(tmp_path)
    assert survey_images(tmp_path).paths == ("a.png",)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ListingError, match="drive cannot be listed"):
        survey_images(tmp_path)


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


def test_links_to_folders_are_followed_once(picture, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    picture.save(tmp_path / "elsewhere" / "a.png")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert list_images(folder) == ["link/a.png"]


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


def test_network_input_is_resized_as_a_tensor_without_antialias(picture):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing(24, 16, "bilinear", False, mean, std)
    image = np.asarray(picture)
    batch = to_network_input([image], preprocessing, torch.device("cpu"))
    assert batch.shape == (1, 3, 16, 24)
    # Bilinear without antialias at scale 2.5 reads the pixels around (x + 1/2) 2.5 - 1/2, and only those.
    y, x = (5 + 0.5) * 2.5 - 0.5, (10 + 0.5) * 2.5 - 0.5
    top, left = int(y), int(x)
    patch = image[top : top + 2, left : left + 2] / 255.0
    weights_y, weights_x = np.array([1 - (y - top), y - top]), np.array([1 - (x - left), x - left])
    value = np.einsum("ijc,i,j->c", patch, weights_y, weights_x)
    np.testing.assert_allclose(batch[0, :, 5, 10].numpy(), (value - mean) / np.array(std), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_8_bit_images_are_resized_as_by_pillow(interpolation):
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    preprocessing = Preprocessing(64, 48, interpolation, True, (0.0,) * 3, (1.0,) * 3, order=RESIZE_8_BIT)
    batch = to_network_input([image], preprocessing, torch.device("cpu"))
    resampling = getattr(PIL.Image.Resampling, interpolation.upper())
    expected = np.asarray(PIL.Image.fromarray(image).resize((64, 48), resampling))
    assert torch.equal((255 * batch[0].permute(1, 2, 0)).round().byte(), torch.tensor(expected))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_input_sizes_by_the_short_side(width, height):
    mode = Preprocessing(512, 512, "bilinear", True, (0.0,) * 3, (1.0,) * 3, resize_mode="short_side")
    size = mode.input_size_of(Size(width, height))
    if min(width, height) <= 512:
        assert size == (width, height)
    else:
        assert min(size) == 512
        assert abs(size.width * height - size.height * width) <= max(width, height)


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
