"""GPS position, direction and time from the EXIF block and the XMP of an image.

Tags are those of CIPA DC-008 (Exif 2.32), sections 4.6.5 and 4.6.6, including deviating types and formats of cameras,
phones and editors. Ambiguous values are left out.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image
from PIL.ExifTags import GPS, IFD, Base

from vpr_dhe.geography.angles import (
    LATITUDE,
    LONGITUDE,
    UnreadAngleError,
    degrees_of_parts,
    degrees_of_text,
    number_of,
)
from vpr_dhe.geography.xmp import Xmp, heading_of, position_of, read_xmp
from vpr_dhe.images.pillow import open_image
from vpr_dhe.records import GeoPosition, ImageRecord
from vpr_dhe.runtime.text import counted

_Tags: TypeAlias = Mapping[int, Any]
_DATE = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)", re.ASCII)
_DATE_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):([0-5]\d)", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
# Civil time zones are between -12:00 and +14:00.
_MAX_OFFSET_HOURS = 14


_NO_XMP = Xmp({})
_MAX_SIDECAR_BYTES = 4_000_000
_SHOWN_REASONS = 4


@dataclass(frozen=True)
class ExifInfo:
    """Position (WGS84), heading and time of a camera.

    `heading_deg` is in [0, 360), clockwise from north; `timestamp_s` is in seconds since the Unix epoch. If a position
    is stated but cannot be used, `position_fault` is a short reason.
    """

    position: GeoPosition | None = None
    heading_deg: float | None = None
    timestamp_s: float | None = None
    position_fault: str | None = None


def read_exif(content: bytes, path: Path | None = None) -> ExifInfo:
    """Read position, heading and time from the metadata of an image file; missing or damaged values are None.

    Values are read from EXIF or, if missing there, from XMP. With the file's path, positions are also read from a
    sidecar file (`photo.xmp` or `photo.jpg.xmp`). Only the header is parsed, so chunks after the pixels of a PNG are
    not found.

    Positions are None if the receiver marks them void, if they are exactly 0 N 0 E (no fix), if no hemisphere is
    stated, and if they refer to the Tokyo datum, hundreds of metres off WGS84. Headings from magnetic north are not
    corrected: the declination is mostly below 15 degrees, and cameras often omit the reference. The time is that of the
    GPS, in UTC, or DateTimeOriginal with OffsetTimeOriginal; without an offset it is None.
    """
    gps, photo, xmp = _read_tags(content)
    position, fault = _position(gps, xmp)
    if position is None and path is not None and (beside := _sidecar(path)):
        # Editors that write a sidecar do not change the image file.
        position, other_fault = _position({}, beside)
        fault = None if position else fault or other_fault
    gps_time_s = _gps_time_s(gps)
    timestamp_s = _original_time_s(photo) if gps_time_s is None else gps_time_s
    heading_deg = heading_of(number_of(gps.get(GPS.GPSImgDirection)))
    return ExifInfo(position, xmp.heading_deg if heading_deg is None else heading_deg, timestamp_s, fault)


def with_exif(record: ImageRecord, content: bytes) -> ImageRecord:
    """Fill in missing values of a record from the metadata in an image file."""
    return record if is_complete(record) else filled_in(record, read_exif(content))


def is_complete(record: ImageRecord) -> bool:
    """Whether a record has all values that metadata may have."""
    return None not in (record.position, record.heading_deg, record.timestamp_s)


def filled_in(record: ImageRecord, info: ExifInfo) -> ImageRecord:
    """Fill in missing values of a record."""
    return replace(
        record,
        position=info.position if record.position is None else record.position,
        heading_deg=info.heading_deg if record.heading_deg is None else record.heading_deg,
        timestamp_s=info.timestamp_s if record.timestamp_s is None else record.timestamp_s,
    )


def unused_positions_text(unused: Sequence[tuple[str, str]]) -> str:
    """Count positions that could not be used, given as paths and reasons, in one line."""
    reasons = Counter(reason for _, reason in unused)
    named = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(_SHOWN_REASONS))
    rest = sum(count for _, count in reasons.most_common()[_SHOWN_REASONS:])
    others = f", {rest} for other reasons" if rest else ""
    return f"{counted(len(unused), 'position')} in metadata cannot be used ({named}{others}), such as of {unused[0][0]}"


def _read_tags(content: bytes) -> tuple[_Tags, _Tags, Xmp]:
    """Read the GPS tags, the photo tags, and XMP."""
    try:
        with open_image(content) as file:
            # The method of the base class, because PNG's own decodes all pixels.
            exif = PIL.Image.Image.getexif(file)
            packet = file.info.get("xmp") or file.info.get("XML:com.adobe.xmp")
            xmp = read_xmp(packet) if isinstance(packet, bytes | str) else _NO_XMP
            return _directory(exif, IFD.GPSInfo), _directory(exif, IFD.Exif), xmp
    except Exception:  # damaged blocks raise errors of any kind
        return {}, {}, _NO_XMP


def _sidecar(path: Path) -> Xmp | None:
    for beside in (path.with_suffix(".xmp"), path.with_name(f"{path.name}.xmp"), path.with_suffix(".XMP")):
        try:
            if beside.is_file() and beside.stat().st_size <= _MAX_SIDECAR_BYTES:
                return read_xmp(beside.read_bytes())
        except OSError:
            continue
    return None


def _directory(exif: PIL.Image.Exif, which: IFD) -> _Tags:
    """Read one directory of the block; empty if it is damaged."""
    try:
        return dict(exif.get_ifd(which))
    except Exception:  # as above
        return {}


def _position(gps: _Tags, xmp: Xmp) -> tuple[GeoPosition | None, str | None]:
    """Position, or the reason why it cannot be used, if one is stated."""
    if "TOKYO" in (_text(gps.get(GPS.GPSMapDatum)).upper(), xmp.datum):
        return None, "datum TOKYO"
    if _text(gps.get(GPS.GPSStatus)).upper() == "V" or xmp.is_void:
        return None, "no fix"
    fault: str | None = None
    for read in (lambda: _tagged_position(gps), xmp.position):
        try:
            if position := read():
                return position, None
        except UnreadAngleError as error:
            fault = fault or str(error)
    return None, fault


def _tagged_position(gps: _Tags) -> GeoPosition | None:
    if GPS.GPSLatitude not in gps and GPS.GPSLongitude not in gps:
        return None
    return position_of(
        _degrees(gps.get(GPS.GPSLatitude), _text(gps.get(GPS.GPSLatitudeRef)), LATITUDE),
        _degrees(gps.get(GPS.GPSLongitude), _text(gps.get(GPS.GPSLongitudeRef)), LONGITUDE),
    )


def _degrees(value: object, reference: str, kind: tuple[str, float]) -> float:
    if isinstance(value, str | bytes):
        return degrees_of_text(_text(value), reference, kind)
    return degrees_of_parts(value if isinstance(value, tuple) else (value,), reference, kind)


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
    numbers = [number for part in value if (number := number_of(part)) is not None]
    return numbers if len(numbers) == count else None


def _text(value: object) -> str:
    """Convert ASCII text without padding; empty for other types."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip("\0 ") if isinstance(value, str) else ""
