"""Loop closures line by line: JSON lines, CSV and hloc pairs."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from vpr_dhe.report.tables.answers import csv_line, pair_line, seconds_text, without_blanks
from vpr_dhe.sequences.loops import Loop

_COLUMNS = ("query", "timestamp_s", "image", "image_timestamp_s", "probability", "similarity", "score", "inliers")


@dataclass(frozen=True)
class LoopFormat:
    """Format of loop closures: an optional header, and one line each.

    `require_name` raises BadInputError for frame names that the format cannot hold.
    """

    header: str | None
    line: Callable[[Loop], str]
    require_name: Callable[[str], object] = lambda _: None


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
    return pair_line(loop.query, loop.match.image)


LOOP_FORMATS = {
    "jsonl": LoopFormat(None, _json_line),
    "csv": LoopFormat(",".join(_COLUMNS), _csv_line),
    "hloc": LoopFormat(None, _pair, without_blanks),
}
