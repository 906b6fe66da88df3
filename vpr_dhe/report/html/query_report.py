"""Report of a query run, least certain answers first, because there is no ground truth."""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.errors import ImageError
from vpr_dhe.geography.coordinates import geo_uri
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.localization.search_area import nearby_text
from vpr_dhe.records import GreyLevels, Progress, RankedMatch
from vpr_dhe.report.html.match_report import (
    ANSWERED,
    MAX_QUERIES,
    UNKNOWN,
    UNREAD,
    Report,
    ShownMatch,
    ShownQuery,
    picture_of,
)
from vpr_dhe.report.html.position_map import DATABASE, MAX_DATABASE_SPOTS, Spot, draw_map
from vpr_dhe.report.tables.answer_tables import uncertainty_text
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.report.tables.coordinate_text import position_text
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.runtime.text import counted


def query_report(sheet: AnswerSheet, index: PlaceIndex, progress: Progress = lambda _: None) -> Report:
    """Report the answers of one run and the positions of their best matches."""
    ordered = sorted(sheet.answers, key=_certainty)[:MAX_QUERIES]
    shown = []
    for number, answer in enumerate(ordered):
        shown.append(_shown_query(f"q{number}", answer, index.manifest.folders, index.manifest.levels))
        progress(1)
    return Report(
        title=f"{counted(len(sheet.answers), 'query', 'queries')}, index {sheet.index}",
        facts=(
            ("Index", f"{sheet.index}, {counted(len(index), 'image')}"),
            ("Model", sheet.model),
            ("Verifier", sheet.verifier),
            *_calibration_facts(sheet),
        ),
        selection=f"{_count_text(len(shown), len(sheet.answers))}, least certain first.",
        queries=tuple(shown),
        map=draw_map([*_database_spots(index), *_best_spots(ordered)]),
    )


def _calibration_facts(sheet: AnswerSheet) -> tuple[tuple[str, str], ...]:
    texts = {"index": "of this index", "default": "default for this model and verifier, not fitted to this map"}
    return (("Calibration", texts[sheet.calibration]),) if sheet.calibration else ()


def _count_text(shown: int, total: int) -> str:
    queries = counted(total, "query", "queries")
    return f"All {queries}" if shown == total else f"{shown} of {queries}"


def _certainty(answer: Answer) -> tuple[float, float]:
    """Sort key: probability where there is one, then score."""
    matches = answer.localization.matches if answer.localization else ()
    if not matches:
        return float("-inf"), float("-inf")
    return 0.0 if matches[0].probability is None else matches[0].probability, matches[0].score


def _shown_query(id: str, answer: Answer, folders: ImageFolders, grey_levels: GreyLevels) -> ShownQuery:
    if answer.localization is None:
        return ShownQuery(id, answer.query, UNREAD, answer.error or "")
    try:
        image = decode_image(Path(answer.query), max_pixels=None, grey_levels=grey_levels)
    except ImageError as error:
        return ShownQuery(id, answer.query, UNREAD, str(error))
    matches = []
    rejected = answer.localization.rejected
    for match in [rejected] if rejected else answer.localization.matches:
        picture, fault = picture_of(image, folders.locate(match.image), match.verification, grey_levels)
        label = "rejected" if rejected else f"rank {match.rank}"
        where = match.position and position_text(match.position)
        matches.append(
            ShownMatch(label, match.image, _facts(match), None, picture, fault, where, geo_uri(match.position))
        )
    if answer.localization.blank:
        return ShownQuery(id, answer.query, UNKNOWN, "it is blank: too little texture to match", tuple(matches))
    nearby = answer.localization.nearby
    if nearby and not nearby.images:
        return ShownQuery(id, answer.query, UNKNOWN, nearby_text(nearby))
    # `known` is None without a minimum probability: then every answer is accepted.
    unknown = answer.localization.known is False
    estimate, best = answer.localization.estimate, rejected or next(iter(answer.localization.matches), None)
    return ShownQuery(
        id,
        answer.query,
        UNKNOWN if unknown else ANSWERED,
        "its best match is too improbable" if unknown else "",
        tuple(matches),
        probability=best and best.probability,
        confidence=confidence_of(answer.localization),
        estimate=estimate and (position_text(estimate.position), uncertainty_text(estimate)),
        geo=estimate and geo_uri(estimate.position),
    )


def _facts(match: RankedMatch) -> tuple[str, ...]:
    probability = () if match.probability is None else (f"p = {match.probability:.2f}",)
    if match.skipped:
        inliers = ("not verified",)
    else:
        inliers = () if match.verification is None else (f"{match.inliers} inliers",)
    return (*probability, *inliers, f"similarity {match.similarity:.3f}")


def _database_spots(index: PlaceIndex) -> list[Spot]:
    ids = index.ids
    chosen = ids[evenly_spread(len(ids), MAX_DATABASE_SPOTS)]
    records = [index.image(int(id)) for id in chosen]
    return [Spot(record.position, DATABASE, record.path) for record in records if record.position]


def _best_spots(answers: Sequence[Answer]) -> list[Spot]:
    return [
        Spot(best.position, ANSWERED, answer.query, link=f"q{number}", estimate=answer.localization.estimate)
        for number, answer in enumerate(answers)
        if answer.localization and answer.localization.matches
        if (best := answer.localization.matches[0]).position
    ]
