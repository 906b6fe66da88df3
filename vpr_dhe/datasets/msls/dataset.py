"""Reader of MSLS."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.base import Layout, PlaceDataset, PlaceSplit, Positives, Protocol, positives_within
from vpr_dhe.datasets.msls.cities import SPLITS, recognises, require_root
from vpr_dhe.datasets.msls.images import City, read_city
from vpr_dhe.datasets.msls.subsets import OFFICIAL, Choice, choose
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import RADIUS_M


def read_msls(root: Path, *, split: str = "val", variant: str = OFFICIAL, radius_m: float = RADIUS_M) -> PlaceDataset:
    """Read cities of MSLS; `root` is the folder that contains train_val or test, or both.

    Queries are searched in the database images of all cities; positives are images of the same city at most `radius_m`
    away. Panoramas are dropped; cities with no queries or no database images left are skipped.

    Args:
        root: folder of the extracted archives.
        split: val (cph and sf), train (those of its 22 cities whose images are there), test (six cities without public
            ground truth: no positions and positives), or cities separated by commas, such as "zurich,paris". Named
            cities follow the rules of val, those of test the rules of test.
        variant: "official" is the evaluation of the authors' code: images of subtask `all`, and only queries with a
            positive (val at 25 m: 740 queries, 18,871 database images); as in that code, train ignores the subtask.
            "all" takes every image and keeps queries without a positive, as the deep visual geo-localization benchmark
            does (Berton et al., CVPR 2022; val: about 11,000 queries); it is not available for test, where panoramas
            are not marked.
        radius_m: maximum distance of positives in metres.

    Raises:
        DatasetError: if a city, a table, a column or the first image of a folder is missing; if a cell cannot be read
            or tables of one folder list different images; if no image is left, or no query has a positive; if the split
            or the variant is unknown.

    Source: Warburg et al., Mapillary Street-Level Sequences, CVPR 2020; github.com/mapillary/mapillary_sls.
    """
    require_root(root)
    choice = choose(root, split, variant)
    read = [read_city(root, city, choice) for city in choice.cities]
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
    return _without_unanswerable(dataset) if variant == OFFICIAL else _with_unanswerable(dataset)


def _read(root: Path, protocol: Protocol) -> PlaceDataset:
    return read_msls(
        root,
        split="val" if protocol.split is None else protocol.split,
        variant=OFFICIAL if protocol.variant is None else protocol.variant,
        radius_m=RADIUS_M if protocol.radius_m is None else protocol.radius_m,
    )


LAYOUT = Layout(
    name="msls",
    expected="Mapillary Street-Level Sequences: {train_val,test}/CITY/{query,database}/images and CSV files",
    options=frozenset({"split", "variant", "radius_m"}),
    recognises=recognises,
    read=_read,
)


def _positives_by_city(root: Path, cities: Iterable[City], radius_m: float) -> Positives:
    """Positives within each city, as rows of the database of all cities."""
    positives: list[np.ndarray] = []
    offset = 0
    for city in cities:
        found = positives_within(PlaceSplit(root, city.database), PlaceSplit(root, city.queries), radius_m)
        positives.extend(rows + offset for rows in found)
        offset += len(city.database)
    return tuple(positives)


def _without_unanswerable(dataset: PlaceDataset) -> PlaceDataset:
    """Drop queries without a positive, as the official code does."""
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
    """Keep queries without a positive, and state their number in the protocol."""
    kept = _unanswerable(dataset)
    return replace(dataset, protocol=f"{dataset.protocol}, queries without a positive kept ({kept})")


def _unanswerable(dataset: PlaceDataset) -> int:
    return sum(not rows.size for rows in dataset.positives or ())


def _title(choice: Choice, cities: Sequence[City]) -> str:
    """Description of cities and rules, with missing and skipped cities."""
    names = [city.name for city in cities]
    spoken = f"{choice.split} ({', '.join(names)})" if choice.split else ", ".join(names)
    variant = "official protocol" if choice.variant == OFFICIAL else "all images"
    missing = [city for city in SPLITS.get(choice.split, ()) if city not in choice.cities]
    passed_over = [city for city in choice.cities if city not in names]
    notes = [
        *([f"not here: {', '.join(missing)}"] if missing else []),
        *([f"passed over as nothing is left of: {', '.join(passed_over)}"] if passed_over else []),
    ]
    return ", ".join([f"MSLS {spoken}", *notes]) + f", {variant}: {choice.rules}"
