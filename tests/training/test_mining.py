"""Mined triplets against a search in plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.datasets.base import PlaceDataset, PlaceSplit, positives_within
from vpr_dhe.errors import DatasetError
from vpr_dhe.records import ImageRecord, MetricPosition
from vpr_dhe.runtime.choices import Mining
from vpr_dhe.training.mining import MiningSettings, TripletMiner, near_images


def split(name, positions):
    records = [ImageRecord(f"{number}.jpg", MetricPosition(x, 0.0)) for number, x in enumerate(positions)]
    return PlaceSplit(Path(name), tuple(records))


@pytest.fixture
def dataset():
    """A street of 300 m: an image every 3 m, and queries between them."""
    database = split("database", np.arange(0.0, 300.0, 3.0).tolist())
    queries = split("queries", [*np.arange(1.0, 300.0, 20.0).tolist(), 900.0])
    return PlaceDataset("street", "within 10 m", database, queries, positives_within(database, queries, 10.0))


VECTORS = {
    name: torch.nn.functional.normalize(torch.randn(100, 6, generator=torch.Generator().manual_seed(seed)), dim=1)
    for seed, name in enumerate(["database", "queries"])
}


def extract(paths):
    return torch.stack([VECTORS[path.parent.name][int(path.stem)] for path in paths])


def distance(query, row):
    return float((VECTORS["queries"][query] - VECTORS["database"][row]).norm())


def x_of(dataset, query, row):
    return abs(dataset.queries.records[query].position.x_m - dataset.database.records[row].position.x_m)


def mined(dataset, seed=0, **settings):
    miner = TripletMiner(dataset, MiningSettings(**{"queries": 12, "negatives": 4, **settings}))
    return miner.mine(extract, np.random.default_rng(seed)).tolist()


def test_full_mining_finds_what_looks_most_alike(dataset):
    triplets = mined(dataset, mining=Mining.full)
    assert len(triplets) == len({query for query, *_ in triplets}) == 12
    for query, positive, *negatives in triplets:
        near = [row for row in range(100) if x_of(dataset, query, row) <= 10]
        far = [row for row in range(100) if x_of(dataset, query, row) > 25]
        assert positive == min(near, key=lambda row: distance(query, row))
        assert negatives == sorted(far, key=lambda row: distance(query, row))[:4]


@pytest.mark.parametrize("settings", [{"mining": Mining.partial, "sampled_images": 30}, {"mining": Mining.random}])
def test_no_negative_is_near_and_none_comes_twice(dataset, settings):
    for query, positive, *negatives in mined(dataset, **settings):
        assert x_of(dataset, query, positive) <= 10
        assert len(set(negatives)) == 4
        assert all(x_of(dataset, query, row) > 25 for row in negatives)


def test_harder_mining_gives_harder_negatives(dataset):
    def hardness(**settings):
        triplets = [triplet for seed in range(10) for triplet in mined(dataset, seed, **settings)]
        return np.mean([distance(query, row) for query, _, *rows in triplets for row in rows])

    random, full = hardness(mining=Mining.random), hardness(mining=Mining.full)
    partial = hardness(mining=Mining.partial, sampled_images=30)
    assert full < partial < random


def test_the_same_seed_mines_the_same_and_another_does_not(dataset):
    assert mined(dataset) == mined(dataset)
    assert mined(dataset) != mined(dataset, seed=1)


def test_queries_without_positive_are_left_out_and_small_sets_refused(dataset):
    assert 15 not in {query for query, *_ in mined(dataset, queries=1000)}
    with pytest.raises(DatasetError, match="no query has a positive and 200 negatives"):
        TripletMiner(dataset, MiningSettings(negatives=200))


def test_cities_whose_positions_cannot_be_compared_are_mined_together():
    def split(name):
        records = [ImageRecord(f"{city}.jpg", MetricPosition(0.0, 0.0, f"UTM of {city}")) for city in ("sf", "cph")]
        return PlaceSplit(Path(name), tuple(records))

    dataset = PlaceDataset("two", "", split("database"), split("queries"), (np.array([0]), np.array([1])))
    assert [rows.tolist() for rows in near_images(dataset, dataset.positives)] == [[0], [1]]
