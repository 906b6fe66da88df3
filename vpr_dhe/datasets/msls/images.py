"""Images of a city of MSLS, with positions, headings and dates from its tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from vpr_dhe.datasets.msls.cities import DATABASE, QUERY, require_city
from vpr_dhe.datasets.msls.subsets import Choice
from vpr_dhe.datasets.msls.tables import KEY, Table, read_table
from vpr_dhe.errors import DatasetError
from vpr_dhe.records import ImageRecord, MetricPosition
from vpr_dhe.runtime.text import number_or_nan

_POSTPROCESSED, _RAW, _SUBTASKS, _SEQUENCES = "postprocessed.csv", "raw.csv", "subtask_index.csv", "seq_info.csv"


@dataclass(frozen=True)
class City:
    """Images of one city, selected by the rules of a `Choice`."""

    name: str
    database: tuple[ImageRecord, ...]
    queries: tuple[ImageRecord, ...]


def read_city(root: Path, city: str, choice: Choice) -> City:
    """Read the tables of one city.

    Raises:
        DatasetError: if the city, a table, a column or the first image of a folder is missing; if a cell cannot be
            read.
    """
    folder = require_city(root, city)
    return City(city, _read_images(root, folder / DATABASE, choice), _read_images(root, folder / QUERY, choice))


def _read_images(root: Path, folder: Path, choice: Choice) -> tuple[ImageRecord, ...]:
    records = _read_test(root, folder) if choice.is_test else _read_placed(root, folder, choice.by_subtask)
    _require_first_image(root, records)
    return records


def _require_first_image(root: Path, records: Sequence[ImageRecord]) -> None:
    if records and not (root / records[0].path).is_file():
        raise DatasetError(
            f"{root / records[0].path} does not exist, though the tables of its folder list it; extract all "
            f"images_vol_*.zip of MSLS into {root}, or name the cities that you have, such as --split cph"
        )


def _read_placed(root: Path, folder: Path, by_subtask: bool) -> tuple[ImageRecord, ...]:
    """Read the images of a folder of train_val."""
    placed = read_table(folder / _POSTPROCESSED, (KEY, "easting", "northing"))
    raw = read_table(folder / _RAW, (KEY, "ca", "captured_at", "pano"))
    placed.require_keys_once()
    placed.require_same_rows(raw)
    counts = raw.equals("pano", False)
    if by_subtask:
        counts = counts & _of_subtask(folder, placed)
    rows = np.flatnonzero(counts)
    path, reference = folder.relative_to(root).as_posix(), f"UTM of {folder.parent.name}"
    return tuple(
        ImageRecord(
            f"{path}/images/{key}.jpg", MetricPosition(east, north, reference), _heading(angle), _midnight(date)
        )
        for key, east, north, angle, date in zip(
            placed.text(KEY, rows),
            placed.numbers("easting", rows),
            placed.numbers("northing", rows),
            raw.text("ca", rows),
            raw.text("captured_at", rows),
            strict=True,
        )
    )


def _read_test(root: Path, folder: Path) -> tuple[ImageRecord, ...]:
    """Read the images of a folder of test, which have no positions, headings and dates."""
    sequences = read_table(folder / _SEQUENCES, (KEY,))
    sequences.require_keys_once()
    keys = sequences.text(KEY, np.flatnonzero(_of_subtask(folder, sequences)))
    path = folder.relative_to(root).as_posix()
    return tuple(ImageRecord(f"{path}/images/{key}.jpg") for key in keys)


def _of_subtask(folder: Path, images: Table) -> Bool[np.ndarray, " rows"]:
    subtasks = read_table(folder / _SUBTASKS, ("all",), optional=KEY)
    images.require_same_rows(subtasks)
    return subtasks.equals("all", True)


def _heading(cell: str) -> float | None:
    """Degrees in [0, 360); None for text that is not an angle from -360 to 360."""
    angle = number_or_nan(cell)
    if not abs(angle) <= 360:
        return None
    turned = angle % 360
    return 0.0 if turned == 360 else turned  # the remainder of a tiny negative angle rounds to 360


@lru_cache(maxsize=10_000)
def _midnight(date: str) -> float | None:
    """Start of the day YYYY-MM-DD in UTC, in seconds since the epoch; None for other text."""
    try:
        return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
