"""Run a data set through a localizer and measure how often it is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.evaluation.recall import recall_at
from vpr_dhe.features.base import Extractor
from vpr_dhe.index.manifest import AUTO, Manifest, SkippedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localizer import Candidate, Localizer, Ranking
from vpr_dhe.places.base import PlaceDataset
from vpr_dhe.records import Progress, Timing


@dataclass(frozen=True)
class EvaluationResult:
    """Recall of one model, codec of local maps and verifier on one data set.

    Recalls are in percent over all queries, `num_queries_with_positive` of which have any right answer. `timing` is
    the median of each stage over the queries. Queries that could not be read count as missed.
    """

    dataset: str
    protocol: str
    model: str
    codec: str
    verifier: str
    rerank: int
    num_database: int
    num_queries: int
    num_queries_with_positive: int
    unreadable: tuple[SkippedImage, ...]
    retrieval: dict[int, float]
    reranked: dict[int, float]
    timing: Timing


def index_database(
    dataset: PlaceDataset,
    extractor: Extractor,
    folder: Path,
    *,
    batch_size: int,
    progress: Progress,
    codec: str = AUTO,
    index_type: str = AUTO,
) -> PlaceIndex:
    """Index the database images of a data set."""
    index = PlaceIndex.create(folder, extractor.spec, dataset.database.folder, codec=codec, index_type=index_type)
    index.add(dataset.database.records, extractor, batch_size=batch_size, progress=progress)
    index.build_vector_files()
    return index


def evaluate(
    dataset: PlaceDataset,
    localizer: Localizer,
    verifier_name: str,
    *,
    manifest: Manifest,
    ranks: Sequence[int] = (1, 5, 10, 20),
    progress: Progress = lambda _: None,
) -> EvaluationResult:
    """Ask every query of a data set and compare the answers with its ground truth.

    `manifest` is what the index holds: how it stores local maps and which images it lacks is part of the result.
    """
    count = max(*ranks, localizer.rerank if localizer.places.verifies else 1)
    folder, records = dataset.queries.folder, dataset.queries.records
    asked = [_rank(localizer, folder, record.path, count, progress) for record in records]
    unreadable = [answer for answer in asked if isinstance(answer, SkippedImage)]
    if len(unreadable) == len(asked):
        raise BadInputError(f"none of the {len(asked)} queries in {folder} could be read ({unreadable[0].reason})")
    rankings = [None if isinstance(answer, SkippedImage) else answer for answer in asked]
    row_of = {record.path: row for row, record in enumerate(dataset.database.records)}

    def rows(candidates: Sequence[Candidate]) -> list[int]:
        known = localizer.places.images([candidate.id for candidate in candidates]).by_id
        return [row_of[known[candidate.id].path] for candidate in candidates]

    read = [ranking for ranking in rankings if ranking is not None]
    return EvaluationResult(
        dataset=dataset.name,
        protocol=dataset.protocol,
        model=localizer.places.spec.model,
        codec=manifest.codec.name if manifest.codec else AUTO,
        verifier=verifier_name,
        rerank=localizer.rerank if localizer.places.verifies else 0,
        num_database=len(dataset.database.records),
        num_queries=len(rankings),
        num_queries_with_positive=sum(len(right) > 0 for right in dataset.positives),
        unreadable=(*manifest.skipped, *unreadable),
        retrieval=recall_at([rows(r.retrieved) if r else [] for r in rankings], dataset.positives, ranks),
        reranked=recall_at([rows(r.reranked) if r else [] for r in rankings], dataset.positives, ranks),
        timing=_median_timing([ranking.timing for ranking in read]),
    )


def _rank(localizer: Localizer, folder: Path, path: str, count: int, progress: Progress) -> Ranking | SkippedImage:
    try:
        return localizer.rank(folder / path, count)
    except ImageError as error:
        return SkippedImage(path, str(error))
    finally:
        progress(1)


def _median_timing(timings: Sequence[Timing]) -> Timing:
    return Timing(
        median(timing.extract_ms for timing in timings),
        median(timing.search_ms for timing in timings),
        median(timing.rerank_ms for timing in timings),
    )
