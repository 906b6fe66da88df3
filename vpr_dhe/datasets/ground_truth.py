"""Files of ground truth for two folders of images.

Tables (.csv, .tsv, .txt) have a header line and one row for each pair of a query and a positive. Columns such as query
and database contain paths relative to the folder or, if no image has that path, file names, with or without extension,
that are unique in the folder. Columns such as query_index and database_index contain indices in the sorted folder, from
0.

Files .npz have the format of Patch-NetVLAD (Hausler et al., CVPR 2021; github.com/QVPR/Patch-NetVLAD, README, section
on custom data sets): positions utmQ (queries, 2) and utmDb (database images, 2), one row per image in the order of the
images, and the radius posDistThr.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vpr_dhe.datasets.base import PlaceSplit, Positives
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.csv_table import Sheet, TableForm, paths_by_name, read_sheet
from vpr_dhe.geography.neighbours import rows_within
from vpr_dhe.images.names import KnownNames, composed, tidy_path

_QUERY, _DATABASE = "query", "database"
_NAMES: dict[str, tuple[str, ...]] = {
    _QUERY: ("query", "query_image", "image_query", "query_path"),
    _DATABASE: (
        *("database", "database_image", "image_database", "database_path", "db"),
        *("reference", "reference_image", "image_reference", "ref"),
        *("map", "map_image", "mapping_image", "index", "gallery"),
    ),
    f"{_QUERY}_index": ("query_index", "query_row"),
    f"{_DATABASE}_index": ("database_index", "database_row", "reference_index", "ref_index", "map_index"),
}
_FORM = TableForm(
    kind="table of right pairs",
    columns=_NAMES,
    suffices=lambda columns: all({side, f"{side}_index"} & columns for side in (_QUERY, _DATABASE)),
    expected="a column query or query_index, and a column database or database_index",
    row="right pair",
    error=DatasetError,
)
_TABLES = frozenset({".csv", ".tsv", ".txt"})
_QUERY_POSITIONS, _DATABASE_POSITIONS, _RADIUS = "utmQ", "utmDb", "posDistThr"
_ARRAYS = f"{_QUERY_POSITIONS}, {_DATABASE_POSITIONS} and {_RADIUS}"


@dataclass(frozen=True)
class GroundTruth:
    """Positives of each query, and the rule in words."""

    positives: Positives
    rule: str


def read_ground_truth(path: Path, database: PlaceSplit, queries: PlaceSplit, radius_m: float | None) -> GroundTruth:
    """Read a file of ground truth in one of the formats of this module.

    Args:
        path: a table or an .npz file.
        database: images of the database, in the order of the indices in the file.
        queries: query images, in the order of the indices in the file.
        radius_m: maximum distance of positives, instead of that of an .npz file.

    Raises:
        DatasetError: if the file is missing, of another kind or damaged; if it lacks a column, a row or an array; if it
            names an image that is not in the folder, or is ambiguous; if its arrays do not have one row per image; if a
            radius is given for a table.
    """
    if path.suffix.lower() == ".npy":
        raise DatasetError(
            f"{path}: files .npy of ground truth hold pickled objects, which may run any code when they are read; if "
            "you trust the file, convert it to a CSV file with the columns query_index and database_index"
        )
    if path.suffix.lower() == ".npz":
        return _within_radius(path, database, queries, radius_m)
    if path.suffix.lower() not in _TABLES:
        raise DatasetError(f"{path} is not a file of ground truth; expected {', '.join(sorted(_TABLES))} or .npz")
    if radius_m is not None:
        raise DatasetError(f"{path} lists what is right, so a radius of {radius_m:g} m has no effect; leave it out")
    return GroundTruth(_listed(read_sheet(path, _FORM), database, queries), f"right as listed in {path.name}")


def _listed(sheet: Sheet, database: PlaceSplit, queries: PlaceSplit) -> Positives:
    right: list[set[int]] = [set() for _ in queries.records]
    for query, image in zip(_rows(sheet, _QUERY, queries), _rows(sheet, _DATABASE, database), strict=True):
        right[query].add(image)
    return tuple(np.array(sorted(rows), dtype=np.int64) for rows in right)


def _rows(sheet: Sheet, side: str, split: PlaceSplit) -> Iterator[int]:
    """Yield the index of the image in each line of the sheet."""
    column = side if sheet.has(side) else f"{side}_index"
    parse = _row_by_name(split) if sheet.has(side) else _row_by_number(split)
    for line, row in zip(sheet.lines, sheet.parsed(column, parse), strict=True):
        if row is None:
            raise sheet.cell_error(line, column, "found an empty cell; fill it in, or remove the line")
        yield row


def _row_by_name(split: PlaceSplit) -> Callable[[str], int]:
    paths = [record.path for record in split.records]
    row_of = {path: row for row, path in enumerate(paths)}
    paths_of, known = paths_by_name(paths), KnownNames(paths)

    def row_by_name(cell: str) -> int:
        path = known.match([cell], split.folder)[0] or tidy_path(cell)
        # Paths with folders are not matched by file name, because many folders number their images in the same way.
        possible = [path] if path in row_of else paths_of.get(composed(path), []) if "/" not in path else []
        if len(possible) > 1:
            raise ValueError(
                f"one image, not {possible[0]} or {possible[1]}; write its path relative to {split.folder}"
            )
        if not possible:
            raise ValueError(f"an image of {split.folder} by its path relative to it, such as {paths[0]}")
        return row_of[possible[0]]

    return row_by_name


def _row_by_number(split: PlaceSplit) -> Callable[[str], int]:
    last = len(split.records) - 1

    def row_by_number(cell: str) -> int:
        if not (cell.isascii() and cell.isdecimal() and int(cell) <= last):
            raise ValueError(f"a whole number from 0 to {last}, the image's place in the sorted {split.folder}")
        return int(cell)

    return row_by_number


def _within_radius(path: Path, database: PlaceSplit, queries: PlaceSplit, radius_m: float | None) -> GroundTruth:
    needed = {_QUERY_POSITIONS, _DATABASE_POSITIONS} | ({_RADIUS} if radius_m is None else set())
    arrays = _read_arrays(path, needed)
    asked = _positions(path, _QUERY_POSITIONS, arrays[_QUERY_POSITIONS], queries)
    near = _positions(path, _DATABASE_POSITIONS, arrays[_DATABASE_POSITIONS], database)
    radius = _radius(path, arrays[_RADIUS]) if radius_m is None else radius_m
    return GroundTruth(rows_within(near, asked, radius), f"within {radius:g} by the positions in {path.name}")


def _read_arrays(path: Path, needed: Set[str]) -> dict[str, np.ndarray]:
    """Read arrays without unpickling objects.

    Raises:
        DatasetError: if the file cannot be read, or lacks one of them.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise DatasetError(f"file of ground truth {path} {found}; expected a file .npz with {_ARRAYS}")
    try:
        with zipfile.ZipFile(path) as archive:
            stored = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = sorted(needed - stored)
        if missing:
            found = ", ".join(sorted(stored)) or "none"
            raise DatasetError(f"{path} has the arrays {found}, but not {', '.join(missing)}; expected {_ARRAYS}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in sorted(needed)}
    # Errors of damaged archives, streams and array headers.
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DatasetError(f"{path} is not a readable file .npz of numbers ({error}); expected {_ARRAYS}") from None


def _positions(path: Path, name: str, array: np.ndarray, split: PlaceSplit) -> Float64[np.ndarray, "images 2"]:
    count = len(split.records)
    if array.shape != (count, 2):
        raise DatasetError(
            f"{path}: the array {name} has the shape {array.shape}; expected ({count}, 2), a position in metres for "
            f"each of the {count} images of {split.folder} in their order"
        )
    return _finite(path, name, array)


def _radius(path: Path, array: np.ndarray) -> float:
    if array.size != 1:
        raise DatasetError(f"{path}: the array {_RADIUS} has the shape {array.shape}; expected one number, in metres")
    return float(_finite(path, _RADIUS, array).item())


def _finite(path: Path, name: str, array: np.ndarray) -> Float64[np.ndarray, "..."]:
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DatasetError(f"{path}: the array {name} holds values that are not finite numbers; expected metres")
    return array.astype(np.float64)
