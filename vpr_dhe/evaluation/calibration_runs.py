"""Examples for a calibration: the evidence of the best match of labelled queries, and whether it is right.

A probability must above all be low for queries of places that are not in the index. Such queries are rare, so each
query is localized twice: against all candidates, and with the images of its place removed from them, where any best
match is wrong. With half the blocks of a town left out of the index, `magsac` on 20 candidates, this lowers the mean
probability of queries from those blocks from 0.31 to 0.11.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64

from vpr_dhe.datasets.base import PlaceDataset, PlaceSplit
from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.evaluation.calibration_metrics import brier_score, expected_calibration_error
from vpr_dhe.features.base import Extractor
from vpr_dhe.images import decode_image
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.evidence import evidence_of
from vpr_dhe.localization.calibration.fitting import Assumptions, Example, example_weights, fit
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.ranking import ranked, ranked_matches, rerank, similarity_weight
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.records import Image, Progress
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.runtime.text import none_of

FOLDS = 5


@dataclass(frozen=True)
class LabelledQuery:
    """Query with the ids of the indexed images that show its place; `withheld` images are never candidates."""

    name: str
    load: Callable[[], Image]
    shown_by: frozenset[int]
    withheld: frozenset[int] = frozenset()


@dataclass(frozen=True)
class CalibrationRun:
    """Examples from labelled queries, those of one query side by side, and the unreadable queries."""

    examples: tuple[Example, ...]
    unreadable: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of probabilities on places that they were not fitted on, with queries weighted as in fitting."""

    brier_score: float
    expected_calibration_error: float


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


def run_queries(
    queries: Iterable[LabelledQuery],
    database: PinnedDatabase,
    extractor: Extractor,
    *,
    rerank: int,
    radius_m: float,
    rank_by: RankBy = "inliers",
    stop_early: float | None = None,
    progress: Progress = lambda _: None,
) -> CalibrationRun:
    """Localize every query twice, the second time without the candidates of its place.

    Args:
        queries: neighbouring places next to each other, so that they can be held out together.
        database: index, with or without a verifier.
        extractor: of the index's model.
        rerank: number of candidates to verify each time.
        radius_m: maximum distance between images of one place.
        rank_by: order of verified candidates.
        stop_early: margin at which verification stops, as for `Localizer`.
        progress: called with the number of queries just finished.

    Raises:
        BadInputError: if no query could be read.
    """
    examples: list[Example] = []
    unreadable: list[SkippedImage] = []
    for query in queries:
        try:
            examples += _examples(query, database, extractor, rerank, radius_m, rank_by, stop_early)
        except ImageError as error:
            unreadable.append(SkippedImage(query.name, str(error)))
        progress(1)
    if not examples:
        reason = f" ({unreadable[0].path}: {unreadable[0].reason})" if unreadable else ""
        raise BadInputError(f"{none_of(len(unreadable), 'query', 'queries')} could be read{reason}")
    return CalibrationRun(tuple(examples), tuple(unreadable))


def _examples(
    query: LabelledQuery,
    database: PinnedDatabase,
    extractor: Extractor,
    count: int,
    radius_m: float,
    rank_by: RankBy,
    stop_early: float | None,
) -> list[Example]:
    """Make one example, and a second one if the query's place is indexed."""
    image = query.load()
    features = extractor.extract([image])[0]
    found = retrieve(database, features, count + len(query.shown_by | query.withheld))
    ids = [candidate.id for candidate in found if candidate.id not in query.withheld]
    first, elsewhere = set(ids[:count]), set([id for id in ids if id not in query.shown_by][:count])
    considered = [candidate for candidate in found if candidate.id in first | elsewhere]
    known = database.records([candidate.id for candidate in considered])
    verify = partial(rerank, database, image, features)
    # An early stop and a coarse pass tell by all candidates which of them are verified.
    is_apart = stop_early is not None or database.shortlist_size is not None
    verified = {} if is_apart else {one.id: one for one in verify(considered, len(considered))}

    def ranking(ids: set[int]) -> list[Candidate]:
        if is_apart:
            kept = [one for one in considered if one.id in ids]
            return verify(kept, len(kept), rank_by, stop_early=stop_early)
        # Verifications do not depend on the other candidates, but evidence does.
        kept = [verified[one.id] for one in considered if one.id in ids and one.id in verified]
        return ranked(kept, rank_by, similarity_weight(database.adaptation)) if database.verifies else kept

    def example(ids: set[int], *, place_known: bool) -> Example:
        chosen = ranking(ids)
        evidence = evidence_of(ranked_matches(chosen, known), radius_m)
        return Example(evidence, chosen[0].id in query.shown_by, place_known, query.shown_by)

    examples = [example(first, place_known=bool(query.shown_by))]
    if query.shown_by and elsewhere:
        examples.append(example(elsewhere, place_known=False))
    return examples


def score_held_out(
    examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions
) -> HeldOutScores | None:
    """Cross-validate in five folds that share no place; None if there are too few examples.

    Raises:
        BadInputError: as `fit` does, for all examples.
    """
    probabilities = held_out_probabilities(examples, assumptions, conditions)
    if probabilities is None:
        return None
    right = np.array([example.right for example in examples])
    weights = example_weights(examples, assumptions.prior)
    return HeldOutScores(
        brier_score(probabilities, right, weights), expected_calibration_error(probabilities, right, weights)
    )


def held_out_probabilities(
    examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions
) -> Float64[np.ndarray, " examples"] | None:
    """Compute each example's probability by a calibration fitted without its place.

    None if too few examples remain to fit on when a fold is held out.
    """
    probabilities = np.empty(len(examples))
    for rows in np.array_split(np.arange(len(examples)), FOLDS):
        held_out = [examples[row] for row in rows]
        seen = frozenset[int]().union(*(example.shown_by for example in held_out))
        inside = set(rows.tolist())
        rest = [one for row, one in enumerate(examples) if row not in inside and one.shown_by.isdisjoint(seen)]
        try:
            calibration = fit(rest, assumptions, conditions, images=0)
        except BadInputError:
            return None
        probabilities[rows] = [calibration.probability(example.evidence) for example in held_out]
    return probabilities
