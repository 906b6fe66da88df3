"""The data sets of `splits.toml`: openly licensed images with databases, queries and positives of this project.

datasets = read_splits(Path("data"), held_out=True)
"""

import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpr_dhe.datasets import PlaceDataset, read_places
from vpr_dhe.datasets.base import PlaceSplit, Positives
from vpr_dhe.errors import DatasetError
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import ImageRecord
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town

SPLITS = Path(__file__).parent / "splits.toml"
TOWN = "synthetic_town"


class _Image:
    """Image with the properties in its name."""

    def __init__(self, path: str, match: re.Match[str]) -> None:
        found = match.groupdict()
        self.path, self.place, self.scene = path, found["place"], found["scene"]
        self.frame, self.visit = int(found["frame"]), int(found.get("visit") or 0)


def read_rules(path: Path = SPLITS) -> dict[str, dict[str, Any]]:
    """The tables of the file, by name."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def read_splits(data: Path, *, held_out: bool, towns: Path | None = None) -> Iterator[PlaceDataset]:
    """Data sets of the scenes that are held out, or of the others.

    Args:
        data: folder of the images.
        held_out: which scenes.
        towns: folder to render the held-out towns into; without it there are none.

    Raises:
        DatasetError: if images are missing.
    """
    for name, rule in read_rules().items():
        if name != TOWN:
            if dataset := read_split_of(name, rule, data, held_out=held_out):
                yield dataset
        elif towns is not None and held_out:
            yield from (render(towns / f"town-{seed}", seed, rule["queries_per_town"]) for seed in rule["held_out"])


def read_split_of(name: str, rule: Mapping[str, Any], data: Path, *, held_out: bool) -> PlaceDataset | None:
    """One data set; None if all of its scenes are in the other split."""
    database = [
        one for one in _images(data / rule["database"], rule, held_out=held_out) if _is_in(one, rule, "database")
    ]
    queries = [one for one in _images(data / rule["queries"], rule, held_out=held_out) if _is_in(one, rule, "query")]
    queries = queries[:: rule.get("query_step", 1)]
    positives = _positives(database, queries, rule)
    kept = [row for row, found in enumerate(positives) if found.size]
    if not kept:
        return None
    which = "held-out scenes" if held_out else "scenes of training"
    return PlaceDataset(
        f"{name}, {which}",
        f"same place, at most {rule['tolerance']} {'degrees' if rule.get('period') else 'frames'} away",
        _split(data / rule["database"], database),
        _split(data / rule["queries"], [queries[row] for row in kept]),
        tuple(positives[row] for row in kept),
    )


def _images(folder: Path, rule: Mapping[str, Any], *, held_out: bool) -> list[_Image]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist; splits.toml names it")
    pattern = re.compile(rule["pattern"])
    found = [_Image(path, match) for path in list_images(folder) if (match := pattern.fullmatch(path))]
    return [one for one in found if (one.scene in rule["held_out"]) == held_out]


def _is_in(image: _Image, rule: Mapping[str, Any], side: str) -> bool:
    first, last = rule.get(f"{side}_frames", (-np.inf, np.inf))
    visits = rule.get(f"{side}_visits")
    return first <= image.frame <= last and (visits is None or image.visit in visits)


def _positives(database: Sequence[_Image], queries: Sequence[_Image], rule: Mapping[str, Any]) -> Positives:
    places = np.array([one.place for one in database])
    frames = np.array([one.frame for one in database])
    period, shift = rule.get("period"), rule.get("frame_shift", 0)
    positives = []
    for query in queries:
        away = np.abs(frames - query.frame - shift)
        away = np.minimum(away, period - away) if period else away
        positives.append(np.flatnonzero((places == query.place) & (away <= rule["tolerance"])).astype(np.int64))
    return tuple(positives)


def _split(folder: Path, images: Sequence[_Image]) -> PlaceSplit:
    return PlaceSplit(folder, tuple(ImageRecord(one.path) for one in images))


def render(folder: Path, seed: int, queries: int) -> PlaceDataset:
    """A generated town, rendered unless it is there already."""
    return written_once(folder, partial(_write_town, seed, queries))


def _write_town(seed: int, queries: int, folder: Path) -> None:
    town = SyntheticTown(seed)
    database = town.database_cameras()
    write_town(folder, town, database, town.query_cameras(queries, seed, database), seed=seed)


def written_once(folder: Path, write: Callable[[Path], object]) -> PlaceDataset:
    """Read a data set, written to the folder first if it is missing; an interrupted one is written again."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        part.rename(folder)
    return read_places(folder)
