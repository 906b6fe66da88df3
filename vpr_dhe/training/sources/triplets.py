"""Place data set for triplets, with some queries held out for validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.datasets.base import PlaceDataset, Protocol
from vpr_dhe.datasets.gsv_cities import is_gsv_cities
from vpr_dhe.errors import DatasetError
from vpr_dhe.training.sources import read_training_places
from vpr_dhe.training.sources.base import PairSource, hold_out
from vpr_dhe.training.sources.positives import PositivePairs


@dataclass(frozen=True)
class TripletData:
    """Training queries with their database, and pairs of held-out queries for validation."""

    training: PlaceDataset
    validation: PairSource


def open_triplet_data(root: Path, protocol: Protocol | None = None) -> TripletData:
    """Open a place data set; every tenth query is held out for validation.

    Raises:
        DatasetError: if the folder is not a place data set, or its ground truth is not public.
    """
    if is_gsv_cities(root):
        raise DatasetError(f"{root} is GSV-Cities, which has no queries for triplets; use --loss multi-similarity")
    dataset = read_training_places(root, protocol or Protocol())
    if dataset is None:
        raise DatasetError(
            f"{root} is not a place data set; triplets need one, because places of images are unknown otherwise"
        )
    training, validation = hold_out(range(len(dataset.queries.records)))
    return TripletData(_with_queries(dataset, training), PositivePairs(_with_queries(dataset, validation)))


def _with_queries(dataset: PlaceDataset, chosen: Sequence[int]) -> PlaceDataset:
    if dataset.positives is None:
        raise DatasetError(f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; train on others")
    records = tuple(dataset.queries.records[query] for query in chosen)
    return replace(
        dataset,
        queries=replace(dataset.queries, records=records),
        positives=tuple(dataset.positives[query] for query in chosen),
    )
