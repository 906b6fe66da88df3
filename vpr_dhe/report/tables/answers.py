"""Answers in the formats of the command line: table, JSON, JSON lines, CSV and hloc pairs."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.coordinates import Coordinates, coordinates_of
from vpr_dhe.geography.distance import EARTH, reference_frame_of
from vpr_dhe.images.view_names import split_view
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.localization.search_area import nearby_text
from vpr_dhe.records import (
    Belief,
    CalibrationSource,
    GeoPosition,
    Localization,
    NearbyImages,
    Position,
    PositionEstimate,
    RankedMatch,
    StrPath,
    Timing,
    Verification,
)
from vpr_dhe.report.tables.adaptation import adaptation_document
from vpr_dhe.report.tables.text import text_table
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.runtime.text import counted, one_line
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame


@dataclass(frozen=True)
class Answer:
    """Result of one query: its localization, or the reason why it failed.

    For a frame of a sequence, `belief` is the belief after it, and `timestamp_s` its time on the recording's clock.
    """

    query: str
    localization: Localization | None = None
    error: str | None = None
    belief: Belief | None = None
    timestamp_s: float | None = None

    @classmethod
    def of(cls, frame: LocalizedFrame) -> "Answer":
        """Answer for a frame, named as the frame is."""
        return cls(frame.name or "", frame.localization, frame.error, frame.belief, frame.timestamp_s)


@dataclass(frozen=True)
class AnswerSheet:
    """All answers of one run with its index, model and verifier, and the order of verified candidates.

    `calibration` is the calibration of the probabilities, if there is one; `unix_times` says whether times of queries
    count from the Unix epoch.
    """

    index: str
    model: str
    verifier: str
    answers: tuple[Answer, ...]
    rank_by: RankBy = "inliers"
    adaptation: AdaptationReport | None = None
    calibration: CalibrationSource | None = None
    unix_times: bool = True

    @classmethod
    def of(
        cls, localizer: Localizer, verifier: str, answers: Iterable[Answer], *, unix_times: bool = True
    ) -> "AnswerSheet":
        """Sheet of the answers of a localizer, which does not know its verifier by name."""
        index = localizer.index
        return cls(
            str(index.folder),
            index.spec.model,
            verifier,
            tuple(answers),
            localizer.rank_by,
            localizer.adaptation,
            localizer.calibration_source,
            unix_times,
        )


@dataclass(frozen=True)
class LineFormat:
    """Format that writes queries independently, in any number of lines, after an optional header.

    `left_out` yields, for each line that the format cannot represent, the offending name.
    """

    lines: Callable[[Answer], Iterator[str]]
    header: str | None = None
    left_out: Callable[[Answer], Iterator[str]] = lambda _: iter(())


_LINE_END = "\r\n"
_CSV_COLUMNS = (
    "query",
    "rank",
    "image",
    "similarity",
    "score",
    "inliers",
    "position_x",
    "position_y",
    "position_reference",
    *Coordinates._fields,
    "error",
    "probability",
    "timestamp_s",
)


def answer_document(answer: Answer) -> dict[str, Any]:
    """JSON object of one query."""
    localization = answer.localization
    return {
        "query": answer.query,
        **({} if answer.timestamp_s is None else {"timestamp_s": answer.timestamp_s}),
        "known": None if localization is None else localization.known,
        "confidence": confidence_of(localization),
        "calibration": None if localization is None else localization.calibration,
        "matches": [_match_document(match) for match in localization.matches] if localization else [],
        "position_estimate": _estimate_document(localization.estimate if localization else None),
        "rejected": _match_document(localization.rejected) if localization and localization.rejected else None,
        "timing_ms": _timing_document(localization.timing if localization else None),
        "error": answer.error,
        **({} if answer.belief is None else {"belief": _belief_document(answer.belief)}),
        **({"blank": True} if localization is not None and localization.blank else {}),
        **({"near": _near_document(localization.nearby)} if localization and localization.nearby else {}),
    }


def _near_document(nearby: NearbyImages) -> dict[str, Any]:
    near = nearby.near
    return {
        **position_document(near.position),
        "within_m": near.within_m,
        "images": nearby.images,
        "unplaced": nearby.unplaced,
    }


def _estimate_document(estimate: PositionEstimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        **position_document(estimate.position),
        "covariance_m2": estimate.covariance_m2.tolist(),
        "semi_axes_m": list(estimate.semi_axes_m),
        "orientation_deg": estimate.orientation_deg,
        "heading_deg": estimate.heading_deg,
        "matches": estimate.matches,
    }


def _belief_document(belief: Belief) -> dict[str, Any]:
    places = [
        {
            "image": place.image,
            "probability": place.probability,
            **position_document(place.position),
        }
        for place in belief.places
    ]
    return {"unknown": belief.unknown, "places": places}


def _timing_document(timing: Timing | None) -> dict[str, float | None]:
    """Milliseconds by stage; null if not timed."""
    if timing is None:
        return {"extract": None, "search": None, "rerank": None}
    return {"extract": timing.extract_ms, "search": timing.search_ms, "rerank": timing.rerank_ms}


def _match_document(match: RankedMatch) -> dict[str, Any]:
    return {
        "rank": match.rank,
        "image": match.image,
        "similarity": match.similarity,
        "score": match.score,
        "inliers": None if match.skipped else match.inliers,
        "similarity_extracted": match.similarity_extracted,
        "evidence": match.evidence,
        "homography": None if match.homography is None else match.homography.tolist(),
        **position_document(match.position),
        "probability": match.probability,
        **details_document(match.verification),
        **_view_document(match),
    }


def _view_document(match: RankedMatch) -> dict[str, Any]:
    """Panorama and direction of a match that is a view of a panorama; empty for others."""
    view = split_view(match.image)
    return {} if view is None else {"panorama": view[0], "yaw_deg": view[1], "heading_deg": match.heading_deg}


def position_document(position: Position | None) -> dict[str, Any]:
    """Position as stored, in degrees and in UTM."""
    return {"position": None if position is None else asdict(position), **coordinates_of(position)._asdict()}


def details_document(verification: Verification | None) -> dict[str, float]:
    """Details of an estimator under their own name; empty without any."""
    details = None if verification is None else verification.details
    return {} if details is None else {details.name: details.value}


def _json(sheet: AnswerSheet) -> str:
    document = {
        "index": sheet.index,
        "model": sheet.model,
        "verifier": sheet.verifier,
        "rank_by": sheet.rank_by,
        "adaptation": adaptation_document(sheet.adaptation),
        "calibration": sheet.calibration,
        "queries": [answer_document(answer) for answer in sheet.answers],
    }
    return json.dumps(document, indent=2)


def json_line(answer: Answer) -> str:
    """One query as one line of JSON."""
    return json.dumps(answer_document(answer))


def _csv_lines(answer: Answer) -> Iterator[str]:
    time = seconds_text(answer.timestamp_s)
    nothing = [""] * (_CSV_COLUMNS.index("error") - 1)
    if answer.localization is None:
        yield csv_line([answer.query, *nothing, answer.error, "", time])
        return
    if not answer.localization.matches:
        yield csv_line([answer.query, *nothing, "", _probability_text(answer.localization.rejected), time])
    for match in answer.localization.matches:
        position = (*_axes(match.position), _reference(match.position), *_coordinate_cells(match.position))
        inliers = "" if match.skipped else match.inliers
        values = [f"{match.similarity:.6f}", f"{match.score:g}", inliers, *position, ""]
        yield csv_line([answer.query, match.rank, match.image, *values, _probability_text(match), time])


def csv_line(cells: Iterable[object]) -> str:
    """One row of CSV without line break."""
    text = io.StringIO()
    # Cells are quoted only for the characters of this line end.
    csv.writer(text, lineterminator=_LINE_END).writerow(cells)
    return text.getvalue().removesuffix(_LINE_END)


def pair_format(name_query: Callable[[str], str] = str, name_image: Callable[[str], str] = str) -> LineFormat:
    """Pairs in the format of hloc (`utils/parsers.py`, `parse_retrieval`) and COLMAP (`ReadImagePairsText`).

    Args:
        name_query: converts the name of a query in the answer to its name in pairs.
        name_image: converts the path of a database image in the index to its name in pairs.
    """

    def pairs(answer: Answer) -> Iterator[tuple[str, str]]:
        for match in answer.localization.matches if answer.localization else ():
            yield name_query(answer.query), name_image(match.image)

    def lines(answer: Answer) -> Iterator[str]:
        return (" ".join(pair) for pair in pairs(answer) if name_with_blanks(*pair) is None)

    def left_out(answer: Answer) -> Iterator[str]:
        return (name for pair in pairs(answer) if (name := name_with_blanks(*pair)) is not None)

    return LineFormat(lines, left_out=left_out)


def rooted_pair_format(root: StrPath, folders: ImageFolders, queries: Iterable[str]) -> LineFormat:
    """Pairs whose names are relative to one folder on both sides, as COLMAP needs them.

    Args:
        root: folder of all images; links to folders are followed.
        folders: of the indexed images.
        queries: paths of the queries, as far as they are known.

    Raises:
        BadInputError: if a folder or a query is not in the root.
    """
    for path in (*folders.all, *queries):
        relative_name(root, path)
    return pair_format(
        lambda query: relative_name(root, query), lambda image: relative_name(root, folders.locate(image))
    )


def relative_name(root: StrPath, path: StrPath) -> str:
    """Path relative to a folder; links to folders are followed.

    Raises:
        BadInputError: if it is not inside.
    """
    folder, path = Path(root).resolve(), Path(path)
    # A file may itself be a link to elsewhere.
    for place in (path.parent.resolve() / path.name, path.resolve()):
        if place.is_relative_to(folder):
            return place.relative_to(folder).as_posix()
    raise BadInputError(f"{path} is not in {root}; give by --names-relative-to a folder that holds all images")


def name_with_blanks(*names: str) -> str | None:
    """First name with whitespace, which lists of pairs do not support; None if there is none."""
    return next((name for name in names if len(name.split()) != 1), None)


def _table(sheet: AnswerSheet) -> str:
    return "\n\n".join(_answer_table(answer) for answer in sheet.answers)


def _doubt(localization: Localization) -> str:
    """Reason to doubt the place of an answer; empty without one."""
    if localization.blank:
        return ": unknown place, because the image is blank"
    return ": probably an unknown place" if confidence_of(localization) == "unknown" else ""


def _answer_table(answer: Answer) -> str:
    name = one_line(answer.query)
    query = name if answer.timestamp_s is None else f"{name} at {answer.timestamp_s:.3f} s"
    if answer.localization is None:
        return f"{query}: skipped"  # the command line prints the reason on standard error
    nearby = answer.localization.nearby
    if nearby and not nearby.images:
        return f"{query}: unknown place: {nearby_text(nearby)}"
    if not answer.localization.matches:
        return f"{query}: unknown place{_in_brackets(answer.localization.rejected)}"
    rows = [
        [str(m.rank), m.image, f"{m.similarity:.3f}", *_checked(m), position_text(m.position)]
        for m in answer.localization.matches
    ]
    title = f"{query}{_doubt(answer.localization)}{_in_brackets(answer.localization.matches[0])}"
    table = text_table(["rank", "image", "similarity", "score", "inliers", "position"], rows)
    return "\n".join([title, table, *_conclusions(answer.localization.estimate, answer.belief)])


def _checked(match: RankedMatch) -> tuple[str, str]:
    """Score and inliers of a match; dashes if it was not verified."""
    return ("-", "-") if match.skipped else (f"{match.score:g}", str(match.inliers))


def _in_brackets(best: RankedMatch | None) -> str:
    """Probability of the best match in brackets, if known."""
    return f" (p = {best.probability:.2f})" if best and best.probability is not None else ""


def _probability_text(match: RankedMatch | None) -> str:
    return f"{match.probability:.6f}" if match and match.probability is not None else ""


def _conclusions(estimate: PositionEstimate | None, belief: Belief | None) -> Iterator[str]:
    """Position estimate from all matches, and belief from all frames."""
    if estimate is not None:
        yield f"estimated position {position_text(estimate.position)} {uncertainty_text(estimate)}"
    if belief is not None:
        likeliest = "; ".join(f"{place.image} {place.probability:.2f}" for place in belief.places)
        yield f"belief {likeliest or 'in no place'}; unknown {belief.unknown:.2f}"


def uncertainty_text(estimate: PositionEstimate) -> str:
    """Number of matches and uncertainty of an estimated position."""
    longer, shorter = estimate.semi_axes_m
    return (
        f"from {counted(estimate.matches, 'match', 'matches')}; standard deviation {longer:.1f} m along azimuth "
        f"{estimate.orientation_deg:.0f} degrees, {shorter:.1f} m across"
    )


def seconds_text(seconds: float | None) -> str:
    """Time in seconds with microseconds for a table cell; empty if unknown."""
    return "" if seconds is None else f"{seconds:.6f}"


def _axes(position: Position | None) -> tuple[str, str]:
    """Coordinates in the order of the axes: x (east, or longitude), then y."""
    if position is None:
        return "", ""
    if isinstance(position, GeoPosition):
        return f"{position.longitude_deg:.7f}", f"{position.latitude_deg:.7f}"
    return f"{position.x_m:.2f}", f"{position.y_m:.2f}"


def _coordinate_cells(position: Position | None) -> tuple[str, ...]:
    """Cells of `Coordinates`: degrees to a centimetre, then metres; empty where unknown."""
    found = coordinates_of(position)
    degrees = ("" if value is None else f"{value:.7f}" for value in (found.latitude, found.longitude))
    metres = ("" if value is None else f"{value:.2f}" for value in (found.easting, found.northing))
    return (*degrees, *metres, found.zone or "")


def position_text(position: Position | None) -> str:
    """Readable position: labelled coordinates, the latitude first, and their reference."""
    if position is None:
        return "-"
    x, y = _axes(position)
    if isinstance(position, GeoPosition):
        return f"latitude {y}, longitude {x}"
    is_utm = reference_frame_of(position) == EARTH or position.reference == "UTM"
    labels = ("easting", "northing") if is_utm else ("x", "y")
    return f"{labels[0]} {x}, {labels[1]} {y} ({position.reference})"


def _reference(position: Position | None) -> str:
    if position is None:
        return ""
    return "WGS84" if isinstance(position, GeoPosition) else position.reference


SHEET_FORMATS: dict[str, Callable[[AnswerSheet], str]] = {"table": _table, "json": _json}
"""Formats of a whole run as one document."""

LINE_FORMATS = {
    "jsonl": LineFormat(lambda answer: iter([json_line(answer)])),
    "csv": LineFormat(_csv_lines, ",".join(_CSV_COLUMNS)),
    "hloc": pair_format(),
}
"""Formats that are written query by query."""
