"""Mapillary Street-Level Sequences (Warburg et al., CVPR 2020), read where its archives were extracted.

The tree is {train_val,test}/CITY/{query,database} with images/KEY.jpg and one row per image, in the same order, in each
of postprocessed.csv (position), raw.csv (heading, date, panorama or not), subtask_index.csv (which images count in the
published evaluation) and seq_info.csv; the cities of test have only the last two.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from vpr_dhe.errors import DatasetError
from vpr_dhe.places.base import RADIUS_M, Layout, PlaceDataset, PlaceSplit, Positives, Protocol, positives_within
from vpr_dhe.records import ImageRecord, MetricPosition

# Which cities each split has, and their order: mapillary_sls/datasets/msls.py of github.com/mapillary/mapillary_sls.
# fmt: off
_TRAIN = (
    "trondheim", "london", "boston", "melbourne", "amsterdam", "helsinki", "tokyo", "toronto", "saopaulo", "moscow",
    "zurich", "paris", "bangkok", "budapest", "austin", "berlin", "ottawa", "phoenix", "goa", "amman", "nairobi",
    "manila",
)
# fmt: on
_VAL = ("cph", "sf")
_TEST = ("miami", "athens", "buenosaires", "stockholm", "bengaluru", "kampala")
_SPLITS = {"train": _TRAIN, "val": _VAL, "test": _TEST}
_OFFICIAL, _ALL = "official", "all"
_QUERY, _DATABASE = "query", "database"
_POSTPROCESSED, _RAW, _SUBTASKS, _SEQUENCES = "postprocessed.csv", "raw.csv", "subtask_index.csv", "seq_info.csv"
_KEY = "key"


@dataclass(frozen=True)
class _Choice:
    """Which cities are read and which of their images count; `split` is empty where cities were named."""

    split: str
    cities: tuple[str, ...]
    variant: str

    @property
    def is_test(self) -> bool:
        return self.cities[0] in _TEST

    @property
    def by_subtask(self) -> bool:
        """Whether only images of the subtask `all` count: the official code asks for that in val and test only."""
        return self.variant == _OFFICIAL and self.split != "train"

    @property
    def rules(self) -> str:
        """What makes an image count, in words."""
        rules = [*(["subtask all"] if self.by_subtask else []), *([] if self.is_test else ["panoramas dropped"])]
        return ", ".join(rules)


@dataclass(frozen=True)
class _City:
    """The images of one city that count."""

    name: str
    database: tuple[ImageRecord, ...]
    queries: tuple[ImageRecord, ...]


@dataclass(frozen=True)
class _Table:
    """Columns of one CSV file as text; row 0 is line 2 of the file."""

    path: Path
    cells: pd.DataFrame

    def text(self, column: str, rows: Int64[np.ndarray, " kept"]) -> list[str]:
        """The cells of some rows."""
        return self.cells[column].iloc[rows].tolist()

    def numbers(self, column: str, rows: Int64[np.ndarray, " kept"]) -> list[float]:
        """The same as finite numbers.

        Raises:
            DatasetError: if a cell is none.
        """
        cells = self.text(column, rows)
        numbers = [_number(cell) for cell in cells]
        for row, cell, number in zip(rows.tolist(), cells, numbers, strict=True):
            if not math.isfinite(number):
                raise self._unreadable(row, column, cell, "a number of metres")
        return numbers

    def says(self, column: str, value: bool) -> Bool[np.ndarray, " rows"]:
        """Which rows hold True or False, whichever is asked for; an empty cell is neither.

        Raises:
            DatasetError: if a cell is neither True, False nor empty.
        """
        cells = self.cells[column].str.strip().str.lower()
        unreadable = np.flatnonzero(~cells.isin(["true", "false", ""]).to_numpy(dtype=bool))
        if unreadable.size:
            row = int(unreadable[0])
            raise self._unreadable(row, column, self.cells[column].iloc[row], "True or False")
        return (cells == str(value).lower()).to_numpy(dtype=bool)

    def require_keys_once(self) -> None:
        """Raise unless each row has a key that no other has."""
        keys = self.cells[_KEY]
        wrong = np.flatnonzero((keys.duplicated() | (keys == "")).to_numpy(dtype=bool))
        if not wrong.size:
            return
        row = int(wrong[0])
        if not keys.iloc[row]:
            raise self._unreadable(row, _KEY, "", "the name of an image without .jpg")
        first = int(np.flatnonzero((keys == keys.iloc[row]).to_numpy(dtype=bool))[0])
        raise DatasetError(
            f"{self.path}: lines {first + 2} and {row + 2} have the same key {keys.iloc[row]}; expected one row for "
            "each image; extract metadata.zip of MSLS again"
        )

    def require_same_rows(self, other: "_Table") -> None:
        """Raise unless row by row both are about the same image; a table without keys need only be as long."""
        if len(self.cells) != len(other.cells):
            raise DatasetError(
                f"{self.path} has {len(self.cells)} rows and {other.path.name} beside it {len(other.cells)}; expected "
                "one row for each image in both; extract metadata.zip of MSLS again"
            )
        if _KEY not in other.cells:
            return
        different = np.flatnonzero(self.cells[_KEY].to_numpy() != other.cells[_KEY].to_numpy())
        if different.size:
            row = int(different[0])
            raise DatasetError(
                f"line {row + 2} of {self.path} is about {self.cells[_KEY].iloc[row]}, but of {other.path.name} beside "
                f"it about {other.cells[_KEY].iloc[row]}; expected the same images in the same order in both; extract "
                "metadata.zip of MSLS again"
            )

    def _unreadable(self, row: int, column: str, cell: str, expected: str) -> DatasetError:
        return DatasetError(
            f"{self.path}, line {row + 2}, column {column}: found {cell!r}; expected {expected}; extract metadata.zip "
            "of MSLS again"
        )


def read_msls(root: Path, *, split: str = "val", variant: str = _OFFICIAL, radius_m: float = RADIUS_M) -> PlaceDataset:
    """Read some cities of MSLS; `root` is the folder that train_val or test, or both, lie in.

    All queries are looked for among the database images of all cities together; right are those of the same city at
    most `radius_m` away. Panoramas never count; a city that no query or no database image is left of is passed over.

    Args:
        root: where the archives were extracted. Nothing is written there.
        split: val (cph and sf), train (those of its 22 cities whose images are there), test (six cities whose ground
            truth is not public, so that there are neither positions nor positives), or cities separated by commas:
            "cph" alone, "zurich,paris". Named cities are read as val is, those of test as test is.
        variant: "official" is the evaluation of the authors' code: images of subtask `all`, and no queries without a
            right answer (val at 25 m: 740 queries, 18,871 database images). As in that code, train takes no heed of
            the subtask. "all" takes every image and keeps queries without a right answer, as the deep visual
            geo-localization benchmark does (Berton et al., CVPR 2022; val: about 11,000 queries). It needs to know the
            panoramas, which test does not tell.
        radius_m: distance in metres up to which an image shows the query's place.

    Raises:
        DatasetError: if a city, a table, a column or the first image of a folder is missing; if a cell cannot be read
            or tables of one folder list different images; if no image counts, or no query has a right answer; if the
            split or the variant is unknown.

    Source: Warburg et al., Mapillary Street-Level Sequences, CVPR 2020; github.com/mapillary/mapillary_sls.
    """
    _require_root(root)
    choice = _choose(root, split, variant)
    read = [_read_city(root, city, choice) for city in choice.cities]
    cities = [city for city in read if city.database and city.queries]
    if not cities:
        raise DatasetError(
            f"{root}: no pair of query and database images is left of {', '.join(choice.cities)} ({choice.rules}); "
            "expected some of each in a city; choose other cities with --split, or --variant all"
        )
    database = PlaceSplit(root, tuple(itertools.chain.from_iterable(city.database for city in cities)))
    queries = PlaceSplit(root, tuple(itertools.chain.from_iterable(city.queries for city in cities)))
    title = _title(choice, cities)
    if choice.is_test:
        return PlaceDataset("msls", f"{title}, ground truth not public", database, queries, None)
    positives = _positives_by_city(root, cities, radius_m)
    dataset = PlaceDataset("msls", f"{title}, within {radius_m:g} m in the same city", database, queries, positives)
    return _without_unanswerable(dataset) if variant == _OFFICIAL else _with_unanswerable(dataset)


def _read(root: Path, protocol: Protocol) -> PlaceDataset:
    return read_msls(
        root,
        split="val" if protocol.split is None else protocol.split,
        variant=_OFFICIAL if protocol.variant is None else protocol.variant,
        radius_m=RADIUS_M if protocol.radius_m is None else protocol.radius_m,
    )


def _recognises(root: Path) -> bool:
    return bool(_cities_of(root))


LAYOUT = Layout(
    name="msls",
    expected="Mapillary Street-Level Sequences: {train_val,test}/CITY/{query,database}/images and CSV files",
    options=frozenset({"split", "variant", "radius_m"}),
    recognises=_recognises,
    read=_read,
)


def _city_folder(root: Path, city: str) -> Path:
    return root / ("test" if city in _TEST else "train_val") / city


def _cities_of(root: Path, within: str = "") -> list[str]:
    """The published cities that have a query or a database folder, or `within` such a folder."""
    return [
        city
        for city in itertools.chain.from_iterable(_SPLITS.values())
        if any((_city_folder(root, city) / side / within).is_dir() for side in (_QUERY, _DATABASE))
    ]


def _require_root(root: Path) -> None:
    if _recognises(root):
        return
    if not root.is_dir():
        raise DatasetError(f"data set folder {root} does not exist; expected the one that MSLS was extracted into")
    nested = (folder.parent for name in ("train_val", "test") for folder in root.glob(f"*/{name}"))
    near = next((folder for folder in [*root.resolve().parents[:3], *nested] if _recognises(folder)), None)
    advice = "extract the archives of MSLS there" if near is None else f"give {near} instead"
    raise DatasetError(
        f"{root} is not the folder that MSLS was extracted into: it has no train_val/CITY/query or test/CITY/query; "
        f"{advice}"
    )


def _choose(root: Path, split: str, variant: str) -> _Choice:
    if variant not in (_OFFICIAL, _ALL):
        raise DatasetError(f"unknown variant {variant!r} of MSLS; expected {_OFFICIAL} or {_ALL}")
    choice = _Choice(split if split in _SPLITS else "", _choose_cities(root, split), variant)
    if choice.is_test and variant == _ALL:
        raise DatasetError(
            f"found --variant {_ALL} for {', '.join(choice.cities)} of MSLS, which do not tell their panoramas; "
            f"expected {_OFFICIAL}; leave --variant out"
        )
    return choice


def _choose_cities(root: Path, split: str) -> tuple[str, ...]:
    if split == "train":
        return _train_cities(root)
    if split in _SPLITS:
        return _SPLITS[split]
    cities = tuple(name.strip() for name in split.split(","))
    known = list(itertools.chain.from_iterable(_SPLITS.values()))
    for city in cities:
        if city not in known:
            raise DatasetError(
                f"unknown split or city {city!r} of MSLS; expected train, val, test, or cities separated by commas: "
                f"{', '.join(known)}"
            )
    if len(set(cities)) < len(cities):
        raise DatasetError(f"--split {split} names a city more than once; name each city once")
    if len({city in _TEST for city in cities}) > 1:
        raise DatasetError(
            f"--split {split} mixes cities of test, whose ground truth is not public, with others; read them apart"
        )
    return cities


def _train_cities(root: Path) -> tuple[str, ...]:
    # metadata.zip has the tables of all cities, so that only the images tell which of them the user has.
    cities = tuple(city for city in _cities_of(root, "images") if city in _TRAIN)
    if not cities:
        raise DatasetError(
            f"{root / 'train_val'} has no images of a train city; expected CITY/{{query,database}}/images for some of "
            f"{', '.join(_TRAIN)}; extract images_vol_*.zip of MSLS into {root}, or choose another --split"
        )
    return cities


def _read_city(root: Path, city: str, choice: _Choice) -> _City:
    folder = _city_folder(root, city)
    _require_folders(root, folder)
    return _City(city, _read_images(root, folder / _DATABASE, choice), _read_images(root, folder / _QUERY, choice))


def _read_images(root: Path, folder: Path, choice: _Choice) -> tuple[ImageRecord, ...]:
    records = _read_test(root, folder) if choice.is_test else _read_placed(root, folder, choice.by_subtask)
    _require_first_image(root, records)
    return records


def _require_folders(root: Path, city_folder: Path) -> None:
    for folder in (city_folder, city_folder / _DATABASE, city_folder / _QUERY):
        if not folder.is_dir():
            others = [city for city in _cities_of(root, "images") if city != city_folder.name]
            raise DatasetError(
                f"{folder} does not exist; expected {city_folder}/{{query,database}}; extract metadata.zip and all "
                f"images_vol_*.zip of MSLS into {root}, or name the cities that you have: --split "
                f"{others[0] if others else 'cph'} reads one city alone"
            )


def _require_first_image(root: Path, records: Sequence[ImageRecord]) -> None:
    if records and not (root / records[0].path).is_file():
        raise DatasetError(
            f"{root / records[0].path} does not exist, though the tables of its folder list it; extract all "
            f"images_vol_*.zip of MSLS into {root}, or name the cities that you have, such as --split cph"
        )


def _read_placed(root: Path, folder: Path, by_subtask: bool) -> tuple[ImageRecord, ...]:
    """The images of a folder of train_val that count, with all that its tables say."""
    placed = _read_table(folder / _POSTPROCESSED, (_KEY, "easting", "northing"))
    raw = _read_table(folder / _RAW, (_KEY, "ca", "captured_at", "pano"))
    placed.require_keys_once()
    placed.require_same_rows(raw)
    counts = raw.says("pano", False)
    if by_subtask:
        counts = counts & _of_subtask(folder, placed)
    rows = np.flatnonzero(counts)
    path, reference = folder.relative_to(root).as_posix(), f"UTM of {folder.parent.name}"
    return tuple(
        ImageRecord(
            f"{path}/images/{key}.jpg", MetricPosition(east, north, reference), _heading(angle), _midnight(date)
        )
        for key, east, north, angle, date in zip(
            placed.text(_KEY, rows),
            placed.numbers("easting", rows),
            placed.numbers("northing", rows),
            raw.text("ca", rows),
            raw.text("captured_at", rows),
            strict=True,
        )
    )


def _read_test(root: Path, folder: Path) -> tuple[ImageRecord, ...]:
    """The images of a folder of test that count, of which nothing more is known."""
    sequences = _read_table(folder / _SEQUENCES, (_KEY,))
    sequences.require_keys_once()
    keys = sequences.text(_KEY, np.flatnonzero(_of_subtask(folder, sequences)))
    path = folder.relative_to(root).as_posix()
    return tuple(ImageRecord(f"{path}/images/{key}.jpg") for key in keys)


def _of_subtask(folder: Path, images: _Table) -> Bool[np.ndarray, " rows"]:
    subtasks = _read_table(folder / _SUBTASKS, ("all",), optional=_KEY)
    images.require_same_rows(subtasks)
    return subtasks.says("all", True)


def _read_table(path: Path, columns: tuple[str, ...], optional: str = "") -> _Table:
    wanted = {*columns, optional}
    try:
        cells = pd.read_csv(
            path, usecols=lambda name: name in wanted, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig"
        )
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist; expected the tables beside images, as in metadata.zip of MSLS; extract that "
            f"into {path.parents[3]}"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as a table ({' '.join(str(error).split())}); expected columns "
            f"{', '.join(columns)}; extract metadata.zip of MSLS again"
        ) from None
    for column in columns:
        if column not in cells:
            raise DatasetError(
                f"{path} has no column {column}; expected {', '.join(columns)} in its first line; extract metadata.zip "
                "of MSLS again"
            )
    return _Table(path, cells)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _heading(cell: str) -> float | None:
    """Degrees in [0, 360); None of what is no angle of at most one turn."""
    angle = _number(cell)
    if not abs(angle) <= 360:
        return None
    turned = angle % 360
    return 0.0 if turned == 360 else turned  # the remainder of a tiny negative angle rounds up to 360


@lru_cache(maxsize=10_000)
def _midnight(date: str) -> float | None:
    """When the day YYYY-MM-DD began in UTC, in seconds since the epoch; None of other text."""
    try:
        return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _positives_by_city(root: Path, cities: Iterable[_City], radius_m: float) -> Positives:
    """Right answers of each city's queries among its own images, as rows of the database of all cities."""
    positives: list[np.ndarray] = []
    offset = 0
    for city in cities:
        found = positives_within(PlaceSplit(root, city.database), PlaceSplit(root, city.queries), radius_m)
        positives.extend(rows + offset for rows in found)
        offset += len(city.database)
    return tuple(positives)


def _without_unanswerable(dataset: PlaceDataset) -> PlaceDataset:
    """The data set without the queries that no image is right for, as the official code counts them."""
    pairs = zip(dataset.queries.records, dataset.positives or (), strict=True)
    kept = [(record, rows) for record, rows in pairs if rows.size]
    left_out = _unanswerable(dataset)
    return replace(
        dataset,
        protocol=f"{dataset.protocol}, queries without a positive left out ({left_out})",
        queries=PlaceSplit(dataset.queries.folder, tuple(record for record, _ in kept)),
        positives=tuple(rows for _, rows in kept),
    )


def _with_unanswerable(dataset: PlaceDataset) -> PlaceDataset:
    """The data set as it is, its protocol saying how many of its queries cannot be answered."""
    kept = _unanswerable(dataset)
    return replace(dataset, protocol=f"{dataset.protocol}, queries without a positive kept ({kept})")


def _unanswerable(dataset: PlaceDataset) -> int:
    return sum(not rows.size for rows in dataset.positives or ())


def _title(choice: _Choice, cities: Sequence[_City]) -> str:
    """What was read and by which rules, with the cities that were expected and are not in it."""
    names = [city.name for city in cities]
    spoken = f"{choice.split} ({', '.join(names)})" if choice.split else ", ".join(names)
    variant = "official protocol" if choice.variant == _OFFICIAL else "all images"
    missing = [city for city in _SPLITS.get(choice.split, ()) if city not in choice.cities]
    passed_over = [city for city in choice.cities if city not in names]
    notes = [
        *([f"not here: {', '.join(missing)}"] if missing else []),
        *([f"passed over as nothing is left of: {', '.join(passed_over)}"] if passed_over else []),
    ]
    return ", ".join([f"MSLS {spoken}", *notes]) + f", {variant}: {choice.rules}"
