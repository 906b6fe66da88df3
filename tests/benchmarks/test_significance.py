"""Paired differences between prediction folders: known answers."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from significance import differences, gain, gain_cells, mean_of_sets, place_numbers, place_of, standard_error

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.records import ImageRecord


def write(folder, ranks):
    folder.mkdir()
    rows = [
        f"{query},{0 if rank == 'none' else 1},{'' if rank is None else rank},x,1,0" for query, rank in ranks.items()
    ]
    (folder / "per-query.csv").write_text(
        "query,positives,rank_of_first_positive,best_match,score,right\n" + "\n".join(rows)
    )
    return folder


def test_places_are_spots_positions_or_walks():
    assert place_of("queries/@500.0@600.0@31@U@1@2@spot9@@90.0@@@@@.jpg") == "spot9"
    assert place_of("@500.0@600.0@31@U@1@2@@@90.0@@@@@.jpg") == "500.0 600.0"
    assert place_of("floor2/walk_c030_frame_000007.jpg") == place_of("floor2/walk_c030_frame_000013.jpg")
    assert place_of("floor2/walk_c030_frame_000007.jpg") != place_of("floor3/walk_c030_frame_000007.jpg")


def test_one_walk_is_cut_into_blocks_of_ten_frames():
    queries = [f"frame_{number}.jpg" for number in range(25)]
    assert place_numbers(queries).tolist() == [number // 10 for number in range(25)]
    assert len(set(place_numbers([*queries, "other_3.jpg"]).tolist())) == 2


def test_recalls_and_their_difference(tmp_path):
    one = write(tmp_path / "one", {"a1.jpg": 1, "a2.jpg": 2, "b1.jpg": None, "b2.jpg": 7, "c.jpg": "none"})
    other = write(tmp_path / "other", {"a1.jpg": 1, "a2.jpg": 1, "b1.jpg": 1, "b2.jpg": None, "c.jpg": "none"})
    first, five, ten = differences(one, other)
    assert (first.first, first.second, first.points) == (25.0, 75.0, 50.0)
    assert (five.first, five.second) == (50.0, 75.0)
    assert (ten.first, ten.second) == (75.0, 75.0)
    with pytest.raises(SystemExit, match="not about the same queries"):
        differences(one, write(tmp_path / "third", {"a1.jpg": 1}))


def test_queries_of_one_place_count_as_one_draw():
    gains = np.repeat(np.random.default_rng(0).normal(size=50), 20)
    together = standard_error(gains, np.repeat(np.arange(50), 20))
    alone = standard_error(gains, np.arange(1000))
    assert together == pytest.approx(gains.std() / np.sqrt(50), rel=0.1)
    assert alone == pytest.approx(gains.std() / np.sqrt(1000), rel=0.1)


def test_cells_have_the_share_the_gain_and_the_mean_gain(tmp_path):
    queries = PlaceSplit(tmp_path / "queries", tuple(ImageRecord(f"place{number}.jpg") for number in range(10)))
    database = PlaceSplit(tmp_path / "database", queries.records)
    for split in (queries, database):
        split.folder.mkdir()
        for record in split.records:
            (split.folder / record.path).touch()
    dataset = PlaceDataset("places", "the same place", database, queries, None)
    before, after = np.zeros(10), np.array([1.0, 1.0, 1.0, *[0.0] * 7])
    points, error = gain(after, before, dataset)
    mean, error_of_mean = mean_of_sets([points, 0.0], [error, 0.0])
    assert gain_cells([(after, before, dataset), (before, before, dataset)]) == [
        f"30.0 (+30.0 ± {error:.1f})",
        "0.0 (+0.0 ± 0.0)",
        f"{mean:+.2f} ± {error_of_mean:.2f}",
    ]
    assert mean == pytest.approx(15)
