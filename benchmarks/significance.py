"""Paired difference of recall between two methods, with its standard error over places.

    vpr-dhe evaluate DATA --verifier magsac,poselib --predictions run
    python benchmarks/significance.py run/magsac run/poselib

compares two folders that `evaluate --predictions` wrote, for the same queries. Queries of one place (a spot of the
standard layout, a walk of numbered frames) succeed and fail together, so places are resampled, not queries.

Source: Field and Welsh, "Bootstrapping clustered data", JRSS B 2007 (the cluster bootstrap).
"""

import argparse
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.place_evaluation import Prediction

RANKS = (1, 5, 10)
RESAMPLES = 10_000
# Frames of one walk that are taken to succeed and fail together.
_BLOCK = 10
_LAST_NUMBER = re.compile(r"\d+(?=\D*$)")


@dataclass(frozen=True)
class Difference:
    """Recall of `second` minus recall of `first`, in points of percent, with its standard error over places."""

    rank: int
    first: float
    second: float
    standard_error: float

    @property
    def points(self) -> float:
        """The difference."""
        return self.second - self.first


def place_of(query: str) -> str:
    """Place of a query by its path: the spot of a name in the standard layout, else the walk of a numbered frame.

    A standard name is `@utm_east@utm_north@zone@letter@latitude@longitude@spot@...@.jpg`; where it has no spot, its
    position is the place.
    """
    fields = Path(query).name.split("@")
    if len(fields) > 7:
        return fields[7] or f"{fields[1]} {fields[2]}"
    return _LAST_NUMBER.sub("", str(Path(query).with_suffix("")))


def read_ranks(folder: Path) -> dict[str, float]:
    """Rank of the first positive by query, infinite where none was given; queries without any are left out."""
    with (folder / "per-query.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return {row["query"]: float(row["rank_of_first_positive"] or np.inf) for row in rows if int(row["positives"])}


def place_numbers(queries: Sequence[str]) -> Int64[np.ndarray, " queries"]:
    """Number of each query's place; where all are frames of one walk, of its block of ten frames."""
    places = np.unique([place_of(query) for query in queries], return_inverse=True)[1]
    if places.any() or len(queries) <= _BLOCK:
        return places
    order = np.argsort([int(numbers[-1]) for query in queries if (numbers := re.findall(r"\d+", query))])
    blocks = np.empty(len(queries), np.int64)
    blocks[order] = np.arange(len(queries)) // _BLOCK
    return blocks


def mean_of_sets(gains: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Mean gain over independent data sets, and its standard error."""
    return float(np.mean(gains)), float(np.linalg.norm(errors)) / len(errors)


def standard_error(gains: Float64[np.ndarray, " queries"], places: Int64[np.ndarray, " queries"]) -> float:
    """Standard deviation of the mean gain when places are drawn with replacement."""
    sums, counts = np.bincount(places, gains), np.bincount(places)
    drawn = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    return float((sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).std())


def hits_of(
    predictions: Sequence[Sequence[Prediction]], dataset: PlaceDataset, rank: int
) -> Float64[np.ndarray, " queries"]:
    """Whether each query has a positive among the first `rank` ones."""
    assert dataset.positives is not None
    pairs = zip(predictions, dataset.positives, strict=True)
    return np.array([np.isin([one.row for one in found[:rank]], right).any() for found, right in pairs], np.float64)


def gain(
    second: Float64[np.ndarray, " queries"], first: Float64[np.ndarray, " queries"], dataset: PlaceDataset
) -> tuple[float, float]:
    """Mean of `second` minus `first`, hits of the queries of a data set, in points, with its error over places."""
    numbers = place_numbers([record.path for record in dataset.queries.records])
    return 100 * float((second - first).mean()), 100 * standard_error(second - first, numbers)


def gain_cells(
    of_sets: Iterable[tuple[Float64[np.ndarray, " queries"], Float64[np.ndarray, " queries"], PlaceDataset]],
) -> list[str]:
    """Cells of a table: share of hits and gain of each set, from hits after and before, and the mean gain."""
    cells, gains, errors = list[str](), list[float](), list[float]()
    for second, first, dataset in of_sets:
        points, error = gain(second, first, dataset)
        cells.append(f"{100 * second.mean():.1f} ({points:+.1f} ± {error:.1f})")
        gains.append(points)
        errors.append(error)
    mean, error = mean_of_sets(gains, errors)
    return [*cells, f"{mean:+.2f} ± {error:.2f}"]


def differences(first: Path, second: Path, ranks: Sequence[int] = RANKS) -> list[Difference]:
    """Compare two folders of predictions.

    Raises:
        SystemExit: if they are not about the same queries.
    """
    one, other = read_ranks(first), read_ranks(second)
    if one.keys() != other.keys():
        raise SystemExit(f"{first} and {second} are not about the same queries; evaluate the same data set for both")
    queries = sorted(one)
    places = place_numbers(queries)
    found = []
    for rank in ranks:
        hits = np.array([[ranks_of[query] <= rank for query in queries] for ranks_of in (one, other)], np.float64)
        error = standard_error(hits[1] - hits[0], places)
        found.append(Difference(rank, *(100 * hits.mean(axis=1)).tolist(), 100 * error))
    return found


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path, help="folder of one method, as `evaluate --predictions` writes it")
    parser.add_argument("second", type=Path)
    arguments = parser.parse_args()
    for found in differences(arguments.first, arguments.second):
        print(
            f"R@{found.rank}: {found.first:.1f} -> {found.second:.1f}, difference {found.points:+.1f}, "
            f"standard error over places {found.standard_error:.1f}"
        )


if __name__ == "__main__":
    main()
