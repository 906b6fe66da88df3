"""Recall by the shortlist of a coarse pass, and by the weights of inliers, on all data sets of a folder.

    python benchmarks/shortlists.py ../shared/data --frame-tolerance thumbs_gardens_point=2

verifies the first 100 candidates of all queries by `magsac` once, and ranks them by evidence in each way. Gains of R@1
are paired with the ranking of all candidates by plain inliers, with standard errors over places; their mean is that of
the data sets. Writes `benchmarks/results/shortlists.md` and `shortlists.json`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from data_sets import add_tolerances, all_data_sets
from measuring import RESULTS, folder_for, table, write_result
from recorded import Query, localize, record
from significance import place_numbers, standard_error

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.names import BUNDLED, LITE_VLAD

SIZES = (None, 30, 20, 16, 14, 12, 10)
RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Row:
    """One way of ranking on one data set: recall in percent, and gain of R@1 with its standard error."""

    dataset: str
    queries: int
    shortlist_size: int | None
    weighted: bool
    recall: tuple[float, ...]
    gain: float
    standard_error: float


def hits(queries: Sequence[Query], shortlist_size: int | None, *, weighted: bool) -> np.ndarray:
    """Whether a positive is within each of the first ranks, for each query."""
    found: list[list[bool]] = []
    for query in queries:
        ranked = localize(query, "evidence", shortlist_size=shortlist_size, weighted=weighted)
        right = query.right[[one.id for one in ranked]]
        found.append([bool(right[:rank].any()) for rank in RANKS])
    return np.array(found, np.float64)


def measure(dataset: str, queries: Sequence[Query]) -> list[Row]:
    """Rank in all ways."""
    places = place_numbers([query.path for query in queries])
    baseline = hits(queries, None, weighted=False)
    rows: list[Row] = []
    for weighted, size in product((False, True), SIZES):
        found = hits(queries, size, weighted=weighted)
        gains = found[:, 0] - baseline[:, 0]
        recall = tuple((100 * found.mean(axis=0)).tolist())
        error = 100 * standard_error(gains, places)
        rows.append(Row(dataset, len(queries), size, weighted, recall, 100 * float(gains.mean()), error))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """Format a table with one line for each way of ranking, and one column for each data set."""
    names = list(dict.fromkeys(row.dataset for row in rows))
    lines: list[list[str]] = []
    for weighted, size in product((False, True), SIZES):
        chosen = [row for row in rows if (row.weighted, row.shortlist_size) == (weighted, size)]
        mean = np.mean([row.gain for row in chosen])
        error = np.sqrt(sum(row.standard_error**2 for row in chosen)) / len(chosen)
        lines.append(
            [
                "all" if size is None else str(size),
                "yes" if weighted else "no",
                *("/".join(f"{value:.1f}" for value in row.recall) for row in chosen),
                f"{mean:+.1f} ± {error:.1f}",
            ]
        )
    return table(["verified", "weighted", *names, "gain of R@1"], lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=LITE_VLAD, help=f"{', '.join(BUNDLED)} or a model file")
    add_tolerances(parser)
    parser.add_argument("--only", default="", help="only data sets whose name contains this")
    parser.add_argument("--queries", type=int, help="maximum number of queries per data set, evenly spread [all]")
    parser.add_argument("--cache", type=Path, help="keep features and verifications here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with folder_for(arguments.cache) as cache:
        extractor, tolerances = load_extractor(arguments.model), dict(arguments.frame_tolerance)
        for protocols in all_data_sets(
            arguments.folder, tolerances, cache / "towns", only=arguments.only, queries=arguments.queries
        ):
            rows += measure(protocols[0].name, record(protocols[0], extractor, cache))
            print(markdown(rows), end="\n\n", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "shortlists.md").write_text(f"{markdown(rows)}\n")
    document = {"model": arguments.model, "rows": [asdict(row) for row in rows]}
    write_result(arguments.out / "shortlists.json", "shortlists", document)


if __name__ == "__main__":
    main()
