"""EXIF facts against blocks written by Pillow, whole and damaged."""

import io
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from vpr_dhe.geography.exif import ExifInfo, read_exif, with_exif
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition

NOON_S = datetime(2024, 5, 1, 12, 0, 30, tzinfo=UTC).timestamp()
CAMBRIDGE = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (52.0, 12.0, 18.0),
    GPS.GPSLongitudeRef: "W",
    GPS.GPSLongitude: (0.0, 6.0, 36.0),
}
GPS_TIME = {GPS.GPSDateStamp: "2024:05:01", GPS.GPSTimeStamp: (12.0, 0.0, 30.0)}


def photo(gps=None, tags=None, file_format: str = "JPEG") -> bytes:
    exif = PIL.Image.Exif()
    exif.get_ifd(IFD.GPSInfo).update(gps or {})
    exif.get_ifd(IFD.Exif).update(tags or {})
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 24)).save(file, file_format, exif=exif.tobytes())
    return file.getvalue()


def rational(value: float) -> IFDRational:
    fraction = Fraction(value).limit_denominator(10**7)
    return IFDRational(fraction.numerator, fraction.denominator)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_facts_are_read_from_every_format_that_has_exif(file_format):
    gps = CAMBRIDGE | GPS_TIME | {GPS.GPSImgDirectionRef: "T", GPS.GPSImgDirection: 271.5}
    facts = read_exif(photo(gps, file_format=file_format))
    assert facts.position is not None
    assert facts.position.latitude_deg == pytest.approx(52.205)
    assert facts.position.longitude_deg == pytest.approx(-0.11)
    assert (facts.heading_deg, facts.timestamp_s) == (271.5, NOON_S)


@given(
    latitude=st.floats(-90, 90).filter(lambda value: abs(value) > 1e-5),
    longitude=st.floats(-180, 180).filter(lambda value: abs(value) > 1e-5),
)
@example(latitude=-90.0, longitude=180.0)
@example(latitude=59.999999999, longitude=-179.99999999999)
def test_positions_survive_the_way_through_rationals(latitude, longitude):
    def parts(value: float) -> tuple[IFDRational, ...]:
        degrees, rest = divmod(abs(value), 1)
        minutes, rest = divmod(rest * 60, 1)
        return rational(degrees), rational(minutes), rational(rest * 60)

    gps = {
        GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S",
        GPS.GPSLatitude: parts(latitude),
        GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W",
        GPS.GPSLongitude: parts(longitude),
    }
    position = read_exif(photo(gps)).position
    assert position is not None
    # A rational is exact to 1e-7 seconds of arc here.
    assert position.latitude_deg == pytest.approx(latitude, abs=1e-10)
    assert position.longitude_deg == pytest.approx(longitude, abs=1e-10)


@pytest.mark.parametrize(
    "change",
    [
        {GPS.GPSLatitudeRef: ""},
        {GPS.GPSLatitudeRef: "E"},
        {GPS.GPSLongitudeRef: "NW"},
        {GPS.GPSLatitude: (IFDRational(52, 0), 12.0, 18.0)},
        {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
        {GPS.GPSLatitude: (90.0, 0.0, 1.0)},
        {GPS.GPSLongitude: (180.0, 1.0, 0.0)},
        {GPS.GPSLatitude: (52.0, 61.0, 0.0)},
        {GPS.GPSLatitude: (52.0, 12.0)},
        {GPS.GPSLatitude: 52.0},
        {GPS.GPSStatus: "V"},
        {GPS.GPSMapDatum: "TOKYO"},
        {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)},
    ],
)
def test_positions_that_cannot_be_trusted_are_left_out_and_the_rest_is_kept(change):
    facts = read_exif(photo(CAMBRIDGE | GPS_TIME | change))
    assert (facts.position, facts.heading_deg, facts.timestamp_s) == (None, None, NOON_S)
    assert facts.position_fault


@pytest.mark.parametrize("missing", list(CAMBRIDGE))
def test_a_position_needs_both_coordinates_and_both_references(missing):
    assert read_exif(photo({tag: value for tag, value in CAMBRIDGE.items() if tag != missing})).position is None


def test_the_equator_and_the_prime_meridian_are_places():
    on_the_equator = CAMBRIDGE | {GPS.GPSLatitudeRef: "S", GPS.GPSLatitude: (0.0, 0.0, 0.0)}
    position = read_exif(photo(on_the_equator)).position
    assert position is not None
    assert str(position.latitude_deg) == "0.0"


@pytest.mark.parametrize(
    ("reference", "direction", "expected"),
    [
        ("T", 0.0, 0.0),
        ("M", 90.25, 90.25),
        (None, 45.0, 45.0),
        ("T", 360.0, 0.0),
        ("T", 361.0, None),
        ("T", IFDRational(1, 0), None),
    ],
)
def test_headings_from_either_north(reference, direction, expected):
    gps = {GPS.GPSImgDirection: direction} | ({GPS.GPSImgDirectionRef: reference} if reference else {})
    assert read_exif(photo(gps)).heading_deg == expected


@pytest.mark.parametrize(
    ("tags", "expected_s"),
    [
        ({Base.DateTimeOriginal: "2024:05:01 14:00:30", Base.OffsetTimeOriginal: "+02:00"}, NOON_S),
        ({Base.DateTimeOriginal: "2024:05:01 06:30:30", Base.OffsetTimeOriginal: "-05:30"}, NOON_S),
        ({Base.DateTimeOriginal: "2024:05:01 12:00:30", Base.OffsetTimeOriginal: "Z"}, NOON_S),
        ({Base.DateTimeOriginal: "2024:05:01 12:00:30"}, None),
        ({Base.DateTimeOriginal: "2024:05:01 12:00:30", Base.OffsetTimeOriginal: "   :  "}, None),
        ({Base.DateTimeOriginal: "2024:05:01 12:00:30", Base.OffsetTimeOriginal: "+15:00"}, None),
        ({Base.DateTimeOriginal: "0000:00:00 00:00:00", Base.OffsetTimeOriginal: "+02:00"}, None),
        ({Base.DateTimeOriginal: "    :  :     :  :  ", Base.OffsetTimeOriginal: "+02:00"}, None),
    ],
)
def test_local_time_counts_only_with_its_offset(tags, expected_s):
    assert read_exif(photo(tags=tags)).timestamp_s == expected_s


@pytest.mark.parametrize(("fraction", "added_s"), [("25", 0.25), ("007", 0.007), ("5  ", 0.5), ("  ", 0.0), ("x", 0.0)])
def test_fractions_of_a_second_are_added(fraction, added_s):
    tags = {
        Base.DateTimeOriginal: "2024:05:01 12:00:30",
        Base.OffsetTimeOriginal: "+00:00",
        Base.SubsecTimeOriginal: fraction,
    }
    assert read_exif(photo(tags=tags)).timestamp_s == NOON_S + added_s


def test_gps_time_goes_before_the_clock_of_the_camera():
    clock = {Base.DateTimeOriginal: "2024:05:01 12:00:33", Base.OffsetTimeOriginal: "+00:00"}
    assert read_exif(photo(GPS_TIME, clock)).timestamp_s == NOON_S
    for unusable in (
        GPS_TIME | {GPS.GPSTimeStamp: (25.0, 0.0, 0.0)},
        GPS_TIME | {GPS.GPSTimeStamp: (IFDRational(0, 0), 0.0, 0.0)},
        GPS_TIME | {GPS.GPSDateStamp: "2024:13:01"},
        {GPS.GPSTimeStamp: (12.0, 0.0, 30.0)},
    ):
        assert read_exif(photo(unusable, clock)).timestamp_s == NOON_S + 3


def test_images_without_exif_have_no_facts():
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 24)).save(file, "JPEG")
    for content in (file.getvalue(), b"", b"not an image"):
        assert read_exif(content) == ExifInfo()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    cut=st.integers(0, 700),
    edits=st.lists(st.tuples(st.integers(0, 699), st.integers(0, 255)), max_size=12),
)
def test_no_damage_raises(cut, edits):
    clock = {Base.DateTimeOriginal: "2024:05:01 12:00:33", Base.OffsetTimeOriginal: "+00:00"}
    content = bytearray(photo(CAMBRIDGE | GPS_TIME | {GPS.GPSImgDirection: 10.0}, clock)[: 700 - cut])
    for place, value in edits:
        if place < len(content):
            content[place] = value
    facts = read_exif(bytes(content))
    assert facts.heading_deg is None or 0 <= facts.heading_deg < 360
    assert facts.position is None or abs(facts.position.latitude_deg) <= 90


def test_what_a_record_knows_stays():
    content = photo(CAMBRIDGE | GPS_TIME | {GPS.GPSImgDirection: 10.0})
    place = MetricPosition(1.0, 2.0)
    known = ImageRecord("a.jpg", place, 0.0, 0.0)
    assert with_exif(known, content) is known
    assert with_exif(ImageRecord("a.jpg", place), content) == ImageRecord("a.jpg", place, 10.0, NOON_S)
    filled = with_exif(ImageRecord("a.jpg", None, 20.0, 5.0), content)
    assert isinstance(filled.position, GeoPosition)
    assert (filled.heading_deg, filled.timestamp_s) == (20.0, 5.0)
    assert with_exif(ImageRecord("a.jpg"), b"") == ImageRecord("a.jpg")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_pixels_are_not_decoded(file_format, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(noise).save(file, file_format)
    content = file.getvalue()
    # Decoders of Pillow are made here.
    monkeypatch.setattr(PIL.Image, "_getdecoder", lambda *_: pytest.fail("pixels were decoded"))
    read_exif(content)
    with pytest.raises(pytest.fail.Exception, match="pixels were decoded"):
        PIL.Image.open(io.BytesIO(content)).load()
