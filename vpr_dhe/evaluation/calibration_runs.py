"""Ask queries of which it is known what they show, and learn from it how far the best match can be trusted.

What matters most of a probability is that it is low where the query's place is not in the index. Queries of such places
are seldom at hand, so every query is asked twice: once as it is, and once with all images that show its place taken out
of the candidates, when whatever comes first is wrong. On streets of which half the blocks were not indexed, `magsac` on
20 candidates, that lowers the mean probability of queries from there from 0.31 to 0.11.
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
from vpr_dhe.localization.ranking import ranked_matches, rerank
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.records import Image, Progress

FOLDS = 5


@dataclass(frozen=True)
class LabelledQuery:
    """A query, and the ids of the indexed images that show its place; those `withheld` are never its candidates."""

    name: str
    load: Callable[[], Image]
    shown_by: frozenset[int]
    withheld: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Asked:
    """What became of labelled queries; the examples of one query follow each other."""

    examples: tuple[Example, ...]
    unreadable: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class Checked:
    """How probabilities did on places that they were not fitted on, with queries weighed as in fitting."""

    brier_score: float
    expected_calibration_error: float


def indexed(database: PlaceSplit, index: PlaceIndex) -> list[int | None]:
    """The ids of the images of a database, None for those that the index does not hold.

    Raises:
        BadInputError: if they lie outside the folder that is indexed.
    """
    return [index.find(record.path) for record in index.relative(database.records, database.folder, part=True)]


def labelled_queries(dataset: PlaceDataset, index: PlaceIndex) -> list[LabelledQuery]:
    """The queries of a data set whose database is what the index holds; what it does not hold shows no query's place.

    Raises:
        BadInputError: if the index holds none of the database, or the ground truth is not public.
    """
    database, queries = dataset.database, dataset.queries
    if dataset.positives is None:
        raise BadInputError(f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; use other data")
    ids = indexed(database, index)
    if not any(id is not None for id in ids):
        raise BadInputError(
            f"index {index.folder} holds none of the {len(ids)} database images of {dataset.name}, such as "
            f"{database.records[0].path}; index {database.folder}"
        )
    return [
        LabelledQuery(
            record.path,
            partial(decode_image, queries.folder / record.path),
            frozenset(id for row in rows if (id := ids[row]) is not None),
        )
        for record, rows in zip(queries.records, dataset.positives, strict=True)
    ]


def ask(
    queries: Iterable[LabelledQuery],
    database: PinnedDatabase,
    extractor: Extractor,
    *,
    rerank: int,
    radius_m: float,
    progress: Progress = lambda _: None,
) -> Asked:
    """Ask every query, and again with its place taken out of the candidates.

    Args:
        queries: in an order in which neighbours are near each other, so that they can be held out together.
        database: an index with a verifier, or without.
        extractor: the one the index was made with.
        rerank: how many candidates are looked at each time.
        radius_m: up to which distance images show one place.
        progress: called with the number of queries just dealt with.

    Raises:
        BadInputError: if no query could be read.
    """
    examples: list[Example] = []
    unreadable: list[SkippedImage] = []
    for query in queries:
        try:
            examples += _examples(query, database, extractor, rerank, radius_m)
        except ImageError as error:
            unreadable.append(SkippedImage(query.name, str(error)))
        progress(1)
    if not examples:
        reason = f" ({unreadable[0].path}: {unreadable[0].reason})" if unreadable else ""
        raise BadInputError(f"none of the {len(unreadable)} queries could be read{reason}")
    return Asked(tuple(examples), tuple(unreadable))


def _examples(
    query: LabelledQuery, database: PinnedDatabase, extractor: Extractor, count: int, radius_m: float
) -> list[Example]:
    """One example, and a second one if the query's place could have been found."""
    image = query.load()
    features = extractor.extract([image])[0]
    found = retrieve(database, features, count + len(query.shown_by | query.withheld))
    ids = [candidate.id for candidate in found if candidate.id not in query.withheld]
    first, elsewhere = set(ids[:count]), set([id for id in ids if id not in query.shown_by][:count])
    considered = [candidate for candidate in found if candidate.id in first | elsewhere]
    ranking = rerank(database, image, features, considered, len(considered))
    known = database.records([one.id for one in ranking])

    def example(ids: set[int], *, place_known: bool) -> Example:
        # Scores do not depend on what else is verified, so each order is a part of the one of all.
        chosen = [one for one in ranking if one.id in ids]
        evidence = evidence_of(ranked_matches(chosen, known), radius_m)
        return Example(evidence, chosen[0].id in query.shown_by, place_known, query.shown_by)

    examples = [example(first, place_known=bool(query.shown_by))]
    if query.shown_by and elsewhere:
        examples.append(example(elsewhere, place_known=False))
    return examples


def check(examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions) -> Checked | None:
    """Hold out a fifth of the queries at a time, with all others of the same places; None where there are too few.

    Raises:
        BadInputError: as `fit` does, for all examples.
    """
    probabilities = held_out_probabilities(examples, assumptions, conditions)
    if probabilities is None:
        return None
    right = np.array([example.right for example in examples])
    weights = example_weights(examples, assumptions.prior)
    return Checked(
        brier_score(probabilities, right, weights), expected_calibration_error(probabilities, right, weights)
    )


def held_out_probabilities(
    examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions
) -> Float64[np.ndarray, " examples"] | None:
    """For each example the probability that a calibration gives it which saw nothing of its place.

    None where what remains when a fold is held out is too little to fit anything on.
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
