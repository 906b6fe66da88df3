"""A folder as the manual and the examples assume it: photos of a small town, an index of them, a bag and a video."""

import csv
import shutil
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import recordings
from filelock import FileLock

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.manifest import publish
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town

DATABASE, QUERIES = "demo-town/town/images/test/database", "demo-town/town/images/test/queries"
_DATABASE_VIEWS, _QUERY_VIEWS = 16, 3
INDEXES = {"my-index": "photos", "demo-town/index": DATABASE}


def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder, made once for all processes of a test run; take a `copy` to write into."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "little-town"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                make(Path(unfinished) / folder.name).rename(folder)
    return folder


def make(folder: Path) -> Path:
    """Make the folder: 16 database views and 3 query views, under all the names that readers give their own."""
    town = SyntheticTown(0, streets=2)
    database = town.database_cameras()[:_DATABASE_VIEWS]
    write_town(folder / "demo-town" / "town", town, database, town.query_cameras(_QUERY_VIEWS, database=database))
    views, queries = (sorted((folder / part).iterdir()) for part in (DATABASE, QUERIES))
    _copy(views, folder / "photos", keep_names=True)
    _copy([queries[0]], folder / "photos" / "new")
    _copy(queries, folder / "queries")
    shutil.copytree(folder / "photos", folder / "new-photos")
    _copy(views, folder / "my-data" / "database", keep_names=False)
    _copy(queries, folder / "my-data" / "queries", keep_names=False)
    _positions(folder / "positions.csv", [f"{path.name}" for path in views])
    _positions(
        folder / "my-data" / "positions.csv",
        [f"database/{n:04d}.jpg" for n in range(1, _DATABASE_VIEWS + 1)],
        queries=_QUERY_VIEWS,
    )
    for name, path in {"where-is-this": queries[0], "a": views[0], "b": views[0], "new": queries[1]}.items():
        shutil.copy(path, folder / f"{name}.jpg")
    frames = [decode_image(path) for path in views[:12]]
    recordings.bag_of(folder / "day-1.bag", frames)
    recordings.bag_of(folder / "day-2.bag", frames[2:8])
    recordings.video_of(folder / "walk.mp4", frames)
    _times(folder / "frames.csv", sorted(path.name for path in (folder / "queries").iterdir()))
    extractor = load_extractor(DEFAULT_MODEL)
    for name, images in INDEXES.items():
        index = PlaceIndex.create(folder / name, extractor.spec, folder / images)
        index.add(read_split(folder / images).records, extractor)
    return folder


def copy(made: Path, folder: Path) -> Path:
    """A copy of what `make` made; its indexes are of its own photos."""
    shutil.copytree(made, folder)
    for name, images in INDEXES.items():
        manifest = PlaceIndex.open(folder / name).manifest
        publish(replace(manifest, images_folder=str((folder / images).resolve())), folder / name)
    return folder


def _copy(paths: list[Path], folder: Path, *, keep_names: bool = False) -> None:
    folder.mkdir(parents=True)
    for number, path in zip(count(1), paths, strict=False):
        shutil.copy(path, folder / (path.name if keep_names else f"{number:04d}.jpg"))


def _positions(path: Path, names: list[str], queries: int = 0) -> None:
    """Degrees that put every fifth image, and the query of the same number, on a spot of its own."""
    spots = [(name, number // 5) for number, name in enumerate(names)]
    spots += [(f"queries/{number + 1:04d}.jpg", number) for number in range(queries)]
    rows = [(name, f"{49.2 + 1e-3 * spot:.6f}", "7.000000") for name, spot in spots]
    _write(path, ("image", "latitude", "longitude"), rows)


def _times(path: Path, names: list[str]) -> None:
    _write(path, ("image", "timestamp"), [(name, f"{2.0 * number}") for number, name in enumerate(names)])


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
