"""Examples for a calibration: the features of the best match of labelled queries, and whether it is right.

A probability must above all be low for queries of places that are not in the index. Such queries are rare, so each
query is localized twice: against all candidates, and with the images of its place removed from them, where any best
match is wrong. With half the blocks of a town left out of the index, `magsac` on 20 candidates, this lowers the mean
probability of queries from those blocks from 0.31 to 0.11.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.evaluation.calibration.fitting import Example
from vpr_dhe.evaluation.calibration.labelled_queries import LabelledQuery
from vpr_dhe.features.base import Extractor
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.localization.calibration.features import calibration_features
from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.ranking import ranked, ranked_matches, rerank, similarity_weight
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.records import Progress
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.runtime.text import none_of


@dataclass(frozen=True)
class CalibrationRun:
    """Examples from labelled queries, those of one query side by side, and the unreadable queries."""

    examples: tuple[Example, ...]
    unreadable: tuple[SkippedImage, ...]


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
        features = calibration_features(ranked_matches(chosen, known), radius_m)
        return Example(features, chosen[0].id in query.shown_by, place_known, query.shown_by | query.withheld)

    examples = [example(first, place_known=bool(query.shown_by))]
    if query.shown_by and elsewhere:
        examples.append(example(elsewhere, place_known=False))
    return examples
