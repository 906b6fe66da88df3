"""Grey levels of 16-bit images: found from the first images or given, and one rule for images and queries."""

import json

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.loading import require_image
from vpr_dhe.images.opened import FULL_RANGE
from vpr_dhe.index.checked_json import read_document, write_document
from vpr_dhe.index.grey_levels import find_grey_levels, parse_bit_depth
from vpr_dhe.index.manifest import FORMAT
from vpr_dhe.index.paths import FILE_NAME
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import GreyLevels
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier


def scene(seed):
    """Grey values in [0, 1] with every one of 256 levels."""
    coarse = np.random.default_rng(seed).random((9, 12))
    smooth = cv2.resize(coarse, (96, 72), interpolation=cv2.INTER_LINEAR)
    return (smooth - smooth.min()) / np.ptp(smooth)


SENSORS = {
    "8 bits": (0, 255),
    "10 bits": (0, 1023),
    "12 bits": (0, 4095),
    "14 bits": (0, 16383),
    "16 bits": (0, 65535),
    "radiometric": (7300, 8100),
    "one pixel is broken": (0, 4095),
}


def counts(seed, sensor):
    low, high = SENSORS[sensor]
    values = np.rint(low + scene(seed) * (high - low)).astype(np.uint16)
    if "broken" in sensor:
        values[3, 5] = 65535
    return values


@pytest.fixture(params=["png", "tiff", "pgm"])
def kind(request):
    return request.param


def write(path, values):
    if path.suffix == ".pgm":
        path.write_bytes(b"P5 %d %d 65535\n" % (values.shape[1], values.shape[0]) + values.astype(">u2").tobytes())
    else:
        PIL.Image.fromarray(values).save(path)


@pytest.mark.parametrize("sensor", SENSORS)
def test_levels_keep_the_grey_values_of_every_sensor(sensor, kind, tmp_path):
    paths = [tmp_path / f"{seed}.{kind}" for seed in range(4)]
    for seed, path in enumerate(paths):
        write(path, counts(seed, sensor))
    levels = find_grey_levels(paths)
    expected = {"radiometric": None, "one pixel is broken": 12}.get(
        sensor, int(sensor[:2]) if sensor[0].isdigit() else 0
    )
    if expected:
        assert levels == (0, 2**expected - 1)
    image = decode_image(paths[0], grey_levels=levels)[..., 0].astype(int)
    assert len(np.unique(image)) > 180
    difference = np.abs(image - np.rint(255 * scene(0)))
    if expected and "broken" not in sensor:
        assert difference.max() <= 1
    np.testing.assert_array_equal(require_image(counts(0, sensor), levels)[..., 0], image)
    np.testing.assert_array_equal(require_image(PIL.Image.fromarray(counts(0, sensor)), levels)[..., 0], image)


def test_no_levels_without_images_of_16_bits(tmp_path):
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "8.png")
    (tmp_path / "words.png").write_text("these are words")
    images = [tmp_path / "8.png", tmp_path / "words.png", np.zeros((64, 64, 3), np.uint8), torch.zeros(3, 64, 64)]
    assert find_grey_levels(images) is None


def test_noise_alone_is_not_stretched():
    noise = np.random.default_rng(1).normal(7300, 2, (64, 64)).astype(np.uint16)
    levels = find_grey_levels([noise])
    assert levels.high - levels.low >= 128


@given(st.integers(0, 65535))
def test_the_full_range_is_read_as_before(value):
    values = np.full((1, 1), value, np.uint16)
    assert FULL_RANGE.to_8_bits(values)[0, 0] == np.rint(value / 257.0)


def test_bit_depths_in_words():
    assert (parse_bit_depth("auto"), parse_bit_depth("12"), parse_bit_depth("7000:9000")) == (
        None,
        (0, 4095),
        (7000, 9000),
    )
    for text in ("", "7", "17", "12.5", "9000:7000", "5:5", "0:65536", ":9", "a:b"):
        with pytest.raises(BadInputError, match="the bit depth is"):
            parse_bit_depth(text)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "film").mkdir()
    for seed in range(8):
        write(tmp_path / f"film/{seed}.png", counts(seed, "radiometric"))
    return tmp_path / "film"


def indexed(folder, extractor, **options):
    index = PlaceIndex.create(folder.parent / "index", extractor.spec, folder, codec="float16", **options)
    index.add(read_split(folder).records, extractor)
    return index


@pytest.mark.parametrize(("bit_depth", "levels"), [("auto", None), ("7000:8500", (7000, 8500)), ("14", (0, 16383))])
def test_an_index_reads_its_images_and_all_queries_by_one_rule(folder, thumbnail_extractor, bit_depth, levels):
    index = PlaceIndex.open(indexed(folder, thumbnail_extractor, bit_depth=bit_depth).folder)
    low, high = index.manifest.levels
    assert (low, high) == levels if levels else (7000 < low <= 7300 and 8100 <= high < 8300)
    # Later images are read as the first were.
    write(folder / "cold.png", np.clip(counts(9, "radiometric") - 5000, 0, 65535).astype(np.uint16))
    index.add(read_split(folder).records, thumbnail_extractor)
    assert index.manifest.levels == (low, high)
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), thumbnail_extractor)
    path, values = folder / "3.png", counts(3, "radiometric")
    for query in (
        path,
        str(path),
        values,
        PIL.Image.fromarray(values),
        decode_image(path, grey_levels=index.manifest.levels),
    ):
        best = localizer.localize(query, top_k=1).matches[0]
        assert (best.image, best.inliers, round(best.similarity, 3)) == ("3.png", 16, 1.0)


def test_an_index_of_before_is_read_as_before(folder, thumbnail_extractor):
    index = indexed(folder, thumbnail_extractor, bit_depth="16")
    path = index.folder / FILE_NAME
    content = read_document(path, FORMAT, "")
    assert content["grey_levels"] == [0, 65535]
    del content["bit_depth"], content["grey_levels"]
    write_document(index.folder, FILE_NAME, FORMAT, content)
    old = PlaceIndex.open(index.folder)
    assert (old.manifest.bit_depth, old.manifest.levels, old.check().grey_levels) == (None, (0, 65535), None)
    write(folder / "new.png", counts(9, "10 bits"))
    old.add(read_split(folder).records, thumbnail_extractor)
    assert PlaceIndex.open(index.folder).manifest.grey_levels is None


def test_another_bit_depth_needs_another_index(folder, thumbnail_extractor):
    index = indexed(folder, thumbnail_extractor)
    low, high = index.manifest.levels
    index.configure(bit_depth=f"{low}:{high}")
    with pytest.raises(BadInputError, match=f"from {low} to {high}, and --bit-depth is 12; index the images"):
        index.configure(bit_depth="12")


def test_levels_wait_for_the_first_images_of_16_bits(folder, thumbnail_extractor):
    PIL.Image.fromarray(np.uint8(255 * scene(20))).save(folder.parent / "8.png")
    index = PlaceIndex.create(folder.parent / "index", thumbnail_extractor.spec, folder.parent, codec="float16")
    records = read_split(folder.parent).records
    index.add([record for record in records if record.path == "8.png"], thumbnail_extractor)
    assert (index.manifest.grey_levels, index.check().bit_depth) == (None, "auto")
    index.add(records, thumbnail_extractor)
    assert isinstance(index.manifest.grey_levels, GreyLevels)
    assert json.loads(json.dumps(index.check().grey_levels)) == list(index.manifest.levels)


def test_few_16_bit_images_among_many_others_are_found(tmp_path, thumbnail_extractor):
    for number in range(100):
        PIL.Image.new("L", (20, 20), number).save(tmp_path / f"{number:03d}.png")
    unsampled = next(number for number in range(100) if number not in evenly_spread(100, 64))
    write(tmp_path / f"{unsampled:03d}.png", counts(9, "radiometric"))
    index = indexed(tmp_path, thumbnail_extractor)
    assert index.manifest.levels.low > 6000


def test_a_bit_depth_can_be_set_before_there_are_16_bit_images(folder, thumbnail_extractor):
    PIL.Image.fromarray(np.uint8(255 * scene(20))).save(folder.parent / "8.png")
    index = PlaceIndex.create(folder.parent / "index", thumbnail_extractor.spec, folder.parent, codec="float16")
    records = read_split(folder.parent).records
    index.add([record for record in records if record.path == "8.png"], thumbnail_extractor)
    index.configure(bit_depth="14")
    index.add(records, thumbnail_extractor)
    assert (PlaceIndex.open(index.folder).manifest.levels, index.manifest.bit_depth) == ((0, 16383), "14")
    with pytest.raises(BadInputError, match="from 0 to 16383, and --bit-depth is 12"):
        index.configure(bit_depth="12")


def test_colours_of_16_bits_are_not_those_of_one_sensor():
    values = np.full((40, 40, 3), 40_000, np.uint16)
    assert require_image(values, GreyLevels(0, 4095)).max() == round(40_000 / 257)
    assert require_image(values[..., 0], GreyLevels(0, 4095)).max() == 255
