"""Tables of positions: a header line, then one row per image, in the format of `csv_table`.

Columns, with synonyms (case-insensitive, surrounding spaces are ignored):

- image (path, file, filename, name, key, SourceFile): path relative to the images folder or, if no image has that path,
  a file name, with or without extension, that is unique in all folders. All paths may begin with the images folder.
- The position, by the first of these pairs in the table; one is required, unless there are times:
  latitude (lat, GPSLatitude) and longitude (lon, lng, long, GPSLongitude) in degrees, WGS84, also with degree signs,
  minutes and seconds, or the letter of the hemisphere;
  easting (utm_east, east) and northing (utm_north, north) in metres, with an optional zone (utm_zone) like 31U;
  x (x_m) and y (y_m) in metres, in a local frame.
- heading (heading_deg, compass, bearing, GPSImgDirection), optional: degrees clockwise from north.
- timestamp (timestamp_s, time), optional: seconds since the Unix epoch, or ISO 8601 with an offset or Z.

Numbers may have a decimal comma. Cells may be empty, and coordinates and headings may be nan. The first synonym in this
list takes precedence; other columns are ignored.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.angles import LATITUDE, LONGITUDE, UnreadAngleError, degrees_of_text
from vpr_dhe.geography.csv_table import (
    AmbiguousNumberError,
    Sheet,
    TableForm,
    paths_by_name,
    read_sheet,
    with_decimal_point,
)
from vpr_dhe.images.names import KnownNames, composed, tidy_path
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition, Position, StrPath

_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "path", "file", "filename", "name", "key", "sourcefile"),
    "latitude": ("latitude", "lat", "gpslatitude"),
    "longitude": ("longitude", "lon", "lng", "long", "gpslongitude"),
    "easting": ("easting", "utm_east", "east"),
    "northing": ("northing", "utm_north", "north"),
    "zone": ("zone", "utm_zone"),
    "x": ("x", "x_m"),
    "y": ("y", "y_m"),
    "heading": ("heading", "heading_deg", "compass", "bearing", "gpsimgdirection"),
    "timestamp": ("timestamp", "timestamp_s", "time"),
}
_PAIRS = (("latitude", "longitude"), ("easting", "northing"), ("x", "y"))
_FORM = TableForm(
    kind="table of positions",
    columns=_NAMES,
    suffices=lambda columns: "image" in columns and any(columns >= set(pair) for pair in (*_PAIRS, ("timestamp",))),
    expected="a column image, and latitude and longitude, easting and northing, x and y, or timestamp",
    row="image",
    error=BadInputError,
)
_NO_NUMBER = frozenset({"nan", "na", "n/a", "null", "none", "-"})
_ANGLE_SIGNS = re.compile(r"[°'\"\u2032\u2033NSEWnsew]")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d+\D*$)")
_ZONE = re.compile(r"(?:UTM ?)?(\d{1,2}) ?([C-HJ-NP-X]?)", re.ASCII | re.IGNORECASE)
# The last second of year 9999; milliseconds since the epoch, a common error, exceed it.
_LAST_SECOND = datetime.max.replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Unmatched:
    """Number of rows or images without a counterpart, and the first of them, if any."""

    count: int
    example: str | None


@dataclass(frozen=True)
class PlacedImages:
    """Records with the values of a table, and numbers of rows and images without a counterpart."""

    records: tuple[ImageRecord, ...]
    rows_without_image: Unmatched
    images_without_row: Unmatched


@dataclass(frozen=True)
class PositionTable:
    """Table of positions, with at most one row for each spelling of `path`.

    `lines` are the line numbers of the rows in the file `source`, from 1 for the header.
    """

    source: Path
    rows: tuple[ImageRecord, ...]
    lines: tuple[int, ...]

    def apply(self, records: Iterable[ImageRecord], folder: StrPath | None = None) -> PlacedImages:
        """Update records by their rows, whose values override those of the record.

        Args:
            records: images, with paths relative to their folder.
            folder: folder of the images, a possible prefix of paths in the table; without it, see `KnownNames.match`.

        Raises:
            BadInputError: if no row names any of the images, a file name is ambiguous, or two rows of one image differ.
        """
        given = tuple(records)
        row_of = self._row_of([record.path for record in given], None if folder is None else Path(folder))
        if not row_of:
            raise BadInputError(self._no_match(given))
        matched = set(row_of.values())
        return PlacedImages(
            tuple(self._placed(record, row_of.get(record.path)) for record in given),
            _unmatched(row.path for number, row in enumerate(self.rows) if number not in matched),
            _unmatched(record.path for record in given if record.path not in row_of),
        )

    def _row_of(self, paths: Sequence[str], folder: Path | None) -> dict[str, int]:
        """Number of the row of each image, matched by path, otherwise by file name."""
        known = set(paths)
        exact = {row.path: number for number, row in enumerate(self.rows) if row.path in known}
        matched = KnownNames(paths).match([row.path for row in self.rows], folder)
        respelt = self._agreeing((path, number) for number, path in enumerate(matched) if path not in exact)
        # Paths with folders are not matched by file name, because cameras often use the same numbers.
        others = [number for number, path in enumerate(matched) if path is None and "/" not in self.rows[number].path]
        paths_of = paths_by_name(paths) if others else {}
        named = (
            (self._only_path(number, paths_of.get(composed(self.rows[number].path), [])), number) for number in others
        )
        by_path = exact | respelt
        return by_path | self._agreeing((path, number) for path, number in named if path not in by_path)

    def _agreeing(self, numbers: Iterable[tuple[str | None, int]]) -> dict[str, int]:
        """First row of each path, which must not differ from later ones."""
        first: dict[str, int] = {}
        for path, number in numbers:
            if path is not None:
                self._require_agreement(first.setdefault(path, number), number, path)
        return first

    def _only_path(self, number: int, paths: list[str]) -> str | None:
        if len(paths) > 1:
            raise BadInputError(
                f"{self.source}, line {self.lines[number]}: {self.rows[number].path} may be {paths[0]} or {paths[1]}; "
                "write the path relative to the images folder"
            )
        return paths[0] if paths else None

    def _require_agreement(self, first: int, second: int, image: str) -> None:
        if replace(self.rows[first], path=image) != replace(self.rows[second], path=image):
            raise _disagreement(self.source, self.lines[first], self.lines[second], image)

    def _placed(self, record: ImageRecord, number: int | None) -> ImageRecord:
        if number is None:
            return record
        row = self.rows[number]
        return ImageRecord(
            record.path,
            record.position if row.position is None else row.position,
            record.heading_deg if row.heading_deg is None else row.heading_deg,
            record.timestamp_s if row.timestamp_s is None else row.timestamp_s,
        )

    def _no_match(self, given: Sequence[ImageRecord]) -> str:
        wanted = f", such as {given[0].path}" if given else ""
        return (
            f"{self.source}: none of the {len(self.rows)} rows is about one of the {len(given)} images, the first row "
            f"being about {self.rows[0].path}; write paths relative to the images folder{wanted}"
        )


def _unmatched(names: Iterable[str]) -> Unmatched:
    example, count = None, 0
    for name in names:
        example = name if count == 0 else example
        count += 1
    return Unmatched(count, example)


def _disagreement(source: Path, first_line: int, second_line: int, image: str) -> BadInputError:
    return BadInputError(
        f"{source}: lines {first_line} and {second_line} differ about {image}; keep one row for each image"
    )


def read_positions(path: StrPath) -> PositionTable:
    """Read a table of positions in the format of this module.

    Raises:
        BadInputError: if the file is missing, empty, or not a table in UTF-8, lacks a column, has an invalid cell, or
            two rows of one image differ. The message names the line and the column.
    """
    path = Path(path)
    sheet = read_sheet(path, _FORM)
    rows: list[ImageRecord] = []
    lines: list[int] = []
    number_of: dict[str, int] = {}
    for line, row in zip(sheet.lines, _rows(sheet), strict=True):
        earlier = number_of.setdefault(row.path, len(rows))
        if earlier == len(rows):
            rows.append(row)
            lines.append(line)
        elif rows[earlier] != row:
            raise _disagreement(path, lines[earlier], line, row.path)
    return PositionTable(path, tuple(rows), tuple(lines))


def _rows(sheet: Sheet) -> Iterator[ImageRecord]:
    images, positions = sheet.parsed("image", tidy_path), _positions(sheet)
    headings, timestamps = sheet.parsed("heading", _heading_deg), sheet.parsed("timestamp", _timestamp_s)
    columns = zip(images, positions, headings, timestamps, strict=True)
    for line, (image, position, heading_deg, timestamp_s) in zip(sheet.lines, columns, strict=True):
        if image is None:
            raise sheet.cell_error(line, "image", "found an empty cell; name the image, or remove the line")
        yield ImageRecord(image, position, heading_deg, timestamp_s)


def _positions(sheet: Sheet) -> Iterator[Position | None]:
    """Yield positions of the rows from the first pair of coordinates in the sheet."""
    geographic, projected, local = _PAIRS
    if sheet.has(*geographic):
        for pair in _parsed_pair(sheet, geographic, _latitude_deg, _longitude_deg):
            yield GeoPosition(*pair) if pair else None
    elif sheet.has(*projected):
        coordinates = _parsed_pair(sheet, projected, _metres, _metres)
        for pair, zone in zip(coordinates, sheet.parsed("zone", _utm_zone), strict=True):
            yield MetricPosition(*pair, f"UTM {zone}" if zone else "UTM") if pair else None
    else:
        for pair in _parsed_pair(sheet, local, _metres, _metres):
            yield MetricPosition(*pair) if pair else None


def _parsed_pair(
    sheet: Sheet, pair: tuple[str, str], parse: Callable[[str], float], parse_other: Callable[[str], float]
) -> Iterator[tuple[float, float] | None]:
    """Yield coordinates from two columns; None if both are empty.

    Raises:
        BadInputError: if only one is empty, or as `parsed` does.
    """
    columns = zip(sheet.parsed(pair[0], parse), sheet.parsed(pair[1], parse_other), strict=True)
    for line, (one, other) in zip(sheet.lines, columns, strict=True):
        if (one is None) != (other is None):
            empty = pair[0] if one is None else pair[1]
            raise sheet.cell_error(line, empty, "found an empty cell; fill in both coordinates, or neither")
        if one is None or other is None or (math.isnan(one) and math.isnan(other)):
            yield None
            continue
        for name, value in zip(pair, (one, other), strict=True):
            if math.isnan(value):
                raise sheet.cell_error(line, name, "found 'nan'; fill in both coordinates, or neither")
        yield one, other


def _number(cell: str, limit: float, expected: str) -> float:
    try:
        number = float(with_decimal_point(cell))
    except ValueError as error:
        ambiguous = isinstance(error, AmbiguousNumberError)
        raise ValueError(f"{expected}{', with a decimal point' if ambiguous else ''}") from None
    if not abs(number) <= limit:
        raise ValueError(expected)
    return number


def _coordinate(cell: str, limit: float, expected: str) -> float:
    """Parse a number or nan."""
    return math.nan if cell.lower() in _NO_NUMBER else _number(cell, limit, expected)


def _degrees(cell: str, kind: tuple[str, float]) -> float:
    expected, text = f"degrees from -{kind[1]:g} to {kind[1]:g}", _one_decimal_comma(cell)
    try:
        return _coordinate(text, kind[1], expected)
    except ValueError:
        if not _ANGLE_SIGNS.search(text):
            raise
    try:
        return degrees_of_text(text, "", kind, signed=True)
    except UnreadAngleError:
        raise ValueError(expected) from None


def _one_decimal_comma(cell: str) -> str:
    """Replace a single comma between digits by a point, because degrees have no thousands."""
    return cell if "." in cell else _DECIMAL_COMMA.sub(".", cell)


def _latitude_deg(cell: str) -> float:
    return _degrees(cell, LATITUDE)


def _longitude_deg(cell: str) -> float:
    return _degrees(cell, LONGITUDE)


def _metres(cell: str) -> float:
    number = _coordinate(cell, math.inf, "a number of metres")
    if math.isinf(number):
        raise ValueError("a number of metres")
    return number


def _heading_deg(cell: str) -> float | None:
    if cell.lower() in _NO_NUMBER:
        return None
    # The second remainder is for values just below 0, which the first rounds to 360.
    return _number(_one_decimal_comma(cell.rstrip("°")), 360.0, "degrees from -360 to 360") % 360 % 360


def _utm_zone(cell: str) -> str:
    """UTM zone with two digits and a letter, as in file names of the standard layout."""
    zone = _ZONE.fullmatch(cell)
    if zone is None or not 1 <= int(zone[1]) <= 60:
        raise ValueError("a UTM zone such as 31U")
    return f"{int(zone[1]):02d}{zone[2].upper()}"


def _timestamp_s(cell: str) -> float:
    try:
        seconds = float(with_decimal_point(cell))
    except ValueError:
        return _iso_time_s(cell)
    # Written so that NaN fails too.
    if not abs(seconds) <= _LAST_SECOND:
        raise ValueError("seconds, not milliseconds, since 1970-01-01T00:00:00Z")
    return seconds


def _iso_time_s(cell: str) -> float:
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        raise ValueError("seconds since 1970, or a time such as 2024-05-01T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("an offset from UTC as well; add one, such as Z or +02:00")
    return moment.timestamp()
