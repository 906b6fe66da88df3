"""Processor time of several verifiers side by side, as `evaluate` runs them, compared with each one alone.

    python benchmarks/evaluation.py ../shared/data/streetview_west --index INDEX

Each query is searched once, and its candidates are re-ranked by each verifier alone, which reads and matches them
itself, and by all of them side by side, which read and match them once. Both are done in turns, on one thread, and the
rankings must be the same. `search` is that of evaluate: by adapted descriptors and by those as extracted, if the index
is adapted; `limit` is the time of the estimators alone, on matches that are there already. `--index` keeps the index
for a later run. Writes `benchmarks/results/evaluation.md` and `evaluation.json`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, TypeVar

import torch
from measuring import RESULTS, folder_for, table, write_result

from vpr_dhe.datasets import read_places
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.candidate_maps import SharedCandidateMaps
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.ranking import rerank
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Features, Image
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier

Result = TypeVar("Result")

CANDIDATES = 100


@dataclass(frozen=True)
class Turn:
    """Milliseconds of one query; of the verifiers in the order of their names."""

    search: float
    alone: tuple[float, ...]
    side_by_side: float
    limit: float


@dataclass(frozen=True)
class Work:
    """Index and verifiers of a measurement."""

    index: PlaceIndex
    verifiers: Mapping[str, Verifier]

    def turn(self, image: Image, features: Features) -> Turn:
        """Measure one query; AssertionError if verifiers rank differently side by side."""
        snapshot, shared = self.index.snapshot, SharedCandidateMaps()
        alone = [PinnedIndex(snapshot, verifier) for verifier in self.verifiers.values()]
        together = [PinnedIndex(snapshot, one, maps_of=shared) for one in self.verifiers.values()]
        search_ms, candidates = _measured(lambda: self._search(features))

        def reranked(database: PinnedIndex) -> list[int]:
            ranked = rerank(database, image, features, candidates, CANDIDATES, self.index.manifest.settings.rank_by)
            return [candidate.id for candidate in ranked]

        each = [_measured(lambda database=database: reranked(database)) for database in alone]
        shared_ms, rankings = _measured(lambda: [reranked(database) for database in together])
        assert rankings == [ranking for _, ranking in each], "verifiers rank differently side by side"
        limit_ms = self._limit(image, features, rankings)
        return Turn(search_ms, tuple(taken for taken, _ in each), shared_ms, limit_ms)

    def _search(self, features: Features) -> list[Candidate]:
        found = retrieve(PinnedIndex(self.index.snapshot, None), features, CANDIDATES)
        if self.index.manifest.adaptation:
            retrieve(PinnedIndex(self.index.snapshot, None, adapt="off"), features, CANDIDATES)
        return found

    def _limit(self, image: Image, features: Features, rankings: Sequence[Sequence[int]]) -> float:
        """Time of the estimators for the candidates that each verifies, which are the first of its ranking."""
        query, taken = View(features.frame, lambda: image, lambda: features), 0.0
        for verifier, ranking in zip(self.verifiers.values(), rankings, strict=True):
            ids = ranking[: verifier.shortlist_size]
            matches_of = match_by_grid(features, self.index.snapshot.local_maps(ids), self.index.spec)
            matches = [matches_of(row) for row in range(len(ids))]
            views = [View(features.frame, lambda: image, matches=lambda one=one: one) for one in matches]
            taken += _measured(lambda one=verifier.estimator, views=views: one.estimate(query, views))[0]
        return taken


def _measured(work: Callable[[], Result]) -> tuple[float, Result]:
    started = process_time()
    result = work()
    return 1e3 * (process_time() - started), result


def measure(data: Path, extractor: Extractor, names: Sequence[str], cache: Path, queries: int) -> list[Turn]:
    """Measure queries spread over a data set, after one that warms up."""
    dataset = read_places(data).limited(queries + 1)
    index = FeatureCache(cache).index(dataset.database, extractor)
    work = Work(index, build_verifiers(names, Resources(extractor)))
    turns: list[Turn] = []
    for record in dataset.queries.records:
        image = decode_image(dataset.queries.folder / record.path)
        turns.append(work.turn(image, extractor.extract([image])[0]))
    return turns[1:]


def summary(names: Sequence[str], turns: Sequence[Turn]) -> list[tuple[str, float]]:
    """Medians by what was measured, in milliseconds of the processor a query."""
    columns = zip(*(turn.alone for turn in turns), strict=True)
    return [
        ("search", median(turn.search for turn in turns)),
        *((f"{name}, alone", median(times)) for name, times in zip(names, columns, strict=True)),
        ("all, each alone", median(sum(turn.alone) for turn in turns)),
        ("all, side by side", median(turn.side_by_side for turn in turns)),
        ("limit: estimators alone", median(turn.limit for turn in turns)),
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="place data set in a published layout")
    parser.add_argument("--model", default=LITE_VLAD)
    parser.add_argument("--verifiers", nargs="+", default=["magsac", "accurate", "poselib"])
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--index", type=Path, help="folder that keeps the index")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    extractor = load_extractor(arguments.model)
    with folder_for(arguments.index) as cache:
        turns = measure(arguments.data, extractor, arguments.verifiers, cache, arguments.queries)
    found = summary(arguments.verifiers, turns)
    print(text := table(["", "processor ms per query"], [(name, f"{taken:.1f}") for name, taken in found]))
    (arguments.out / "evaluation.md").write_text(f"{text}\n")
    document: dict[str, Any] = {"model": arguments.model, "candidates": CANDIDATES, "verifiers": arguments.verifiers}
    write_result(arguments.out / "evaluation.json", "evaluation", document | {"turns": [asdict(one) for one in turns]})


if __name__ == "__main__":
    main()
