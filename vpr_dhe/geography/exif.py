"""GPS position, direction and time from the EXIF block of an image.

Tags are those of CIPA DC-008 (Exif 2.32), sections 4.6.5 and 4.6.6. Values that cannot be read are left out.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeAlias

import PIL.Image
from PIL.ExifTags import GPS, IFD, Base

from vpr_dhe.records import GeoPosition, ImageRecord
from vpr_dhe.runtime.pillow import open_image

_Tags: TypeAlias = Mapping[int, Any]
_DATE = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)", re.ASCII)
_DATE_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):([0-5]\d)", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
# The civil time zones lie between -12:00 and +14:00.
_MAX_OFFSET_HOURS = 14


@dataclass(frozen=True)
class ExifInfo:
    """Position (WGS84), heading and time of a camera.

    `heading_deg` is in [0, 360), clockwise from north; `timestamp_s` is in seconds since the Unix epoch.
    """

    position: GeoPosition | None = None
    heading_deg: float | None = None
    timestamp_s: float | None = None


def read_exif(content: bytes) -> ExifInfo:
    """Read position, heading and time from the EXIF block of an image file; missing or damaged values are None.

    Only the header is parsed, so EXIF chunks after the pixels of a PNG are not found. Positions are None if the
    receiver marks them void, if they are exactly 0 N 0 E (no fix), and if they refer to the Tokyo datum, hundreds of
    metres off WGS84. Headings from magnetic north are not corrected: the declination is mostly below 15 degrees, and
    cameras often omit the reference. The time is that of the GPS, in UTC, or DateTimeOriginal with OffsetTimeOriginal;
    without an offset it is None.
    """
    gps, photo = _read_tags(content)
    gps_time_s = _gps_time_s(gps)
    timestamp_s = _original_time_s(photo) if gps_time_s is None else gps_time_s
    return ExifInfo(_position(gps), _heading_deg(gps), timestamp_s)


def with_exif(record: ImageRecord, content: bytes) -> ImageRecord:
    """Fill in missing values of a record from an image file's EXIF block."""
    if None not in (record.position, record.heading_deg, record.timestamp_s):
        return record
    info = read_exif(content)
    return replace(
        record,
        position=info.position if record.position is None else record.position,
        heading_deg=info.heading_deg if record.heading_deg is None else record.heading_deg,
        timestamp_s=info.timestamp_s if record.timestamp_s is None else record.timestamp_s,
    )


def _read_tags(content: bytes) -> tuple[_Tags, _Tags]:
    """Read the GPS tags and the photo tags."""
    try:
        with open_image(content) as file:
            # The method of the base class, because PNG's own decodes all pixels.
            exif = PIL.Image.Image.getexif(file)
            return _directory(exif, IFD.GPSInfo), _directory(exif, IFD.Exif)
    except Exception:  # damaged blocks raise errors of any kind
        return {}, {}


def _directory(exif: PIL.Image.Exif, which: IFD) -> _Tags:
    """Read one directory of the block; empty if it is damaged."""
    try:
        return dict(exif.get_ifd(which))
    except Exception:  # as above
        return {}


def _position(gps: _Tags) -> GeoPosition | None:
    if _text(gps.get(GPS.GPSStatus)) == "V" or _text(gps.get(GPS.GPSMapDatum)).upper() == "TOKYO":
        return None
    latitude = _degrees(gps.get(GPS.GPSLatitude), _text(gps.get(GPS.GPSLatitudeRef)), "NS", 90.0)
    longitude = _degrees(gps.get(GPS.GPSLongitude), _text(gps.get(GPS.GPSLongitudeRef)), "EW", 180.0)
    if latitude is None or longitude is None or latitude == longitude == 0.0:
        return None
    return GeoPosition(latitude, longitude)


def _degrees(value: object, reference: str, references: str, limit: float) -> float | None:
    """Degrees, minutes and seconds as signed degrees; `references` names the positive, then the negative side."""
    parts = _numbers(value, 3)
    if parts is None or len(reference) != 1 or reference not in references:
        return None
    degrees, minutes, seconds = parts
    # 60 may result from rounding 59.99.
    if not (degrees >= 0 and 0 <= minutes <= 60 and 0 <= seconds <= 60):
        return None
    total = degrees + minutes / 60 + seconds / 3600
    if total > limit:
        return None
    return total if reference == references[0] else 0.0 - total  # avoids -0.0


def _heading_deg(gps: _Tags) -> float | None:
    heading = _number(gps.get(GPS.GPSImgDirection))
    return heading % 360 if heading is not None and 0 <= heading <= 360 else None


def _gps_time_s(gps: _Tags) -> float | None:
    date = _DATE.fullmatch(_text(gps.get(GPS.GPSDateStamp)))
    clock = _numbers(gps.get(GPS.GPSTimeStamp), 3)
    if date is None or clock is None:
        return None
    hours, minutes, seconds = clock
    # Second 60 is a leap second.
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 61):
        return None
    midnight = _moment_s([int(part) for part in date.groups()], UTC)
    return None if midnight is None else midnight + hours * 3600 + minutes * 60 + seconds


def _original_time_s(photo: _Tags) -> float | None:
    clock = _DATE_TIME.fullmatch(_text(photo.get(Base.DateTimeOriginal)))
    zone = _zone(_text(photo.get(Base.OffsetTimeOriginal)))
    if clock is None or zone is None:
        return None
    moment = _moment_s([int(part) for part in clock.groups()], zone)
    fraction = _DIGITS.fullmatch(_text(photo.get(Base.SubsecTimeOriginal)))
    return moment + float(f"0.{fraction[0]}") if moment is not None and fraction else moment


def _zone(offset: str) -> timezone | None:
    """Time zone of "+hh:mm" or "-hh:mm"; "Z", which is not in the standard, is UTC."""
    if offset == "Z":
        return UTC
    parts = _OFFSET.fullmatch(offset)
    if parts is None or int(parts[2]) > _MAX_OFFSET_HOURS:
        return None
    ahead = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return timezone(ahead if parts[1] == "+" else -ahead)


def _moment_s(parts: list[int], zone: timezone) -> float | None:
    """Seconds since the epoch; None for invalid dates, such as month 0 of a clock that was never set."""
    try:
        return datetime(*parts, tzinfo=zone).timestamp()  # pyright: ignore[reportArgumentType]  # three or six numbers
    except (ValueError, OverflowError):
        return None


def _numbers(value: object, count: int) -> list[float] | None:
    """Convert a tuple of exactly `count` finite numbers; None for other values."""
    if not isinstance(value, tuple) or len(value) != count:
        return None
    numbers = [number for part in value if (number := _number(part)) is not None]
    return numbers if len(numbers) == count else None


def _number(value: object) -> float | None:
    """Convert a finite number; None for other values, such as Pillow's rational with a denominator of zero."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]  # any type
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str:
    """Convert ASCII text without padding; empty for other types."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip("\0 ") if isinstance(value, str) else ""
