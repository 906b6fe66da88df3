"""Loop closures line by line: JSON lines, CSV and hloc pairs."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from vpr_dhe.report.tables.answers import csv_line, name_with_blanks, seconds_text
from vpr_dhe.sequences.loops import Loop

_COLUMNS = ("query", "timestamp_s", "image", "image_timestamp_s", "probability", "similarity", "score", "inliers")


@dataclass(frozen=True)
class LoopFormat:
    """Format of loop closures: an optional header, and one line each.

    `unfit` returns the first of some frame names that the format cannot hold, or None.
    """

    header: str | None
    line: Callable[[Loop], str]
    unfit: Callable[..., str | None] = lambda *_: None


def _json_line(loop: Loop) -> str:
    match = loop.match
    document = {
        "query": loop.query,
        "timestamp_s": loop.timestamp_s,
        "image": match.image,
        "image_timestamp_s": loop.match_timestamp_s,
        "probability": loop.probability,
        "similarity": match.similarity,
        "score": match.score,
        "inliers": match.inliers,
        "homography": None if match.homography is None else match.homography.tolist(),
    }
    return json.dumps(document)


def _csv_line(loop: Loop) -> str:
    match = loop.match
    names = (loop.query, seconds_text(loop.timestamp_s), match.image, seconds_text(loop.match_timestamp_s))
    numbers = (f"{loop.probability:.6f}", f"{match.similarity:.6f}", f"{match.score:g}", match.inliers)
    return csv_line((*names, *numbers))


def _pair(loop: Loop) -> str:
    return f"{loop.query} {loop.match.image}"


LOOP_FORMATS = {
    "jsonl": LoopFormat(None, _json_line),
    "csv": LoopFormat(",".join(_COLUMNS), _csv_line),
    "hloc": LoopFormat(None, _pair, name_with_blanks),
}
