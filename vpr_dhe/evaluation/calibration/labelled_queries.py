"""Queries whose places are known, labelled with the indexed images that show them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vpr_dhe.datasets.base import PlaceDataset, PlaceSplit
from vpr_dhe.errors import BadInputError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Image
from vpr_dhe.runtime.text import none_of


@dataclass(frozen=True)
class LabelledQuery:
    """Query with the ids of the indexed images that show its place; `withheld` images are never candidates."""

    name: str
    load: Callable[[], Image]
    shown_by: frozenset[int]
    withheld: frozenset[int] = frozenset()


def indexed_ids(database: PlaceSplit, index: PlaceIndex) -> list[int | None]:
    """Look up the ids of a database's images; None for images that are not indexed.

    Raises:
        BadInputError: if the images lie outside the indexed folder.
    """
    return [index.find(record.path) for record in index.relative_to_root(database.records, database.folder, part=True)]


def labelled_queries(dataset: PlaceDataset, index: PlaceIndex) -> list[LabelledQuery]:
    """Label the queries of a data set with the indexed images that show their places.

    Raises:
        BadInputError: if no image of the database is indexed, or the ground truth is not public.
    """
    database, queries = dataset.database, dataset.queries
    if dataset.positives is None:
        raise BadInputError(
            f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; give another data set"
        )
    ids = indexed_ids(database, index)
    if not any(id is not None for id in ids):
        raise BadInputError(
            f"index {index.folder} holds {none_of(len(ids), 'database image')} of {dataset.name}, such as "
            f"{database.records[0].path}; index {database.folder}"
        )
    return [
        LabelledQuery(
            record.path,
            partial(decode_image, queries.folder / record.path, grey_levels=index.manifest.levels),
            frozenset(id for row in rows if (id := ids[row]) is not None),
        )
        for record, rows in zip(queries.records, dataset.positives, strict=True)
    ]
