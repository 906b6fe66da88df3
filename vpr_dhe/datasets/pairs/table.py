"""Image pairs in a table `pairs.csv` with columns image_a, image_b and h00 to h22, in the folder of the images."""

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.pairs.base import HomographyPair, PairLayout, PairSet, true_homography
from vpr_dhe.errors import DatasetError
from vpr_dhe.images.decoding import decode_named

FILE_NAME = "pairs.csv"
_ENTRIES = [f"h{row}{column}" for row in range(3) for column in range(3)]
_REQUIRED = ["image_a", "image_b", *_ENTRIES]


def read_table(folder: Path) -> PairSet:
    """Read `pairs.csv` of a folder; image names are relative to it, and a column `name` is optional.

    Raises:
        DatasetError: if the table, a column, or an image is missing, a homography is invalid, or two pairs have the
            same name.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; expected a table with the columns {', '.join(_REQUIRED)}")
    pairs = tuple(_pair(folder, row, f"{path}, line {line}") for line, row in _rows(path))
    return PairSet(folder.resolve().name, f"homographies of {FILE_NAME}, original images", pairs)


def _rows(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    """Line number and cells by column of each row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            header = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a table ({error}); save it as CSV in UTF-8") from None
    crowded = next((line for line, row in rows if None in row), None)
    if crowded is not None:
        raise DatasetError(f"{path}, line {crowded}: more cells than the header has; quote names that hold a comma")
    missing = [column for column in _REQUIRED if column not in header]
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; expected {', '.join(_REQUIRED)}")
    return rows


def _pair(folder: Path, row: Mapping[str, str | None], source: str) -> HomographyPair:
    a, b = row["image_a"] or "", row["image_b"] or ""
    image_a, image_b = _existing(folder / a, source), _existing(folder / b, source)
    try:
        entries = np.array([float(row[entry] or "") for entry in _ENTRIES]).reshape(3, 3)
    except ValueError:
        raise DatasetError(f"{source}: expected a number in each of {', '.join(_ENTRIES)}") from None
    return HomographyPair(
        row.get("name") or f"{a} {b}",
        "",
        partial(decode_named, image_a),
        partial(decode_named, image_b),
        true_homography(entries, source),
    )


def _existing(image: Path, source: str) -> Path:
    if not image.is_file():
        raise DatasetError(f"{image} does not exist, but is named by {source}; copy it there or remove the line")
    return image


LAYOUT = PairLayout("pairs", f"{FILE_NAME} next to the images", lambda root: (root / FILE_NAME).is_file(), read_table)
