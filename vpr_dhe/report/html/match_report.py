"""Report of queries and their matches as one self-contained HTML file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from vpr_dhe.errors import ImageError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.opened import FULL_RANGE
from vpr_dhe.records import NOT_VERIFIED, GreyLevels, Image, Verification
from vpr_dhe.report.html.charts import Chart
from vpr_dhe.report.html.names import readable_name
from vpr_dhe.report.html.position_map import PositionMap
from vpr_dhe.report.pictures.drawing import draw_match
from vpr_dhe.report.pictures.encoding import data_uri, jpeg

MAX_QUERIES = 50
"""Maximum number of queries in a report; with more pictures, browsers become too slow."""
_SIDE_PX = 480

RIGHT, WRONG, UNANSWERABLE, UNREAD = "right", "wrong", "unanswerable", "unread"
ANSWERED, UNKNOWN = "answered", "unknown"
"""Outcomes of a query.

With ground truth: right, wrong, or `unanswerable` if the database has no positive. Without ground truth: `answered`, or
`unknown` if the best match was rejected for its low probability. In both cases, `unread` if the query cannot be read.
"""


@dataclass(frozen=True)
class ShownMatch:
    """One match of a query.

    Args:
        label: label, such as its rank.
        image: path of the database image.
        facts: facts about the match in words.
        right: whether it shows the query's place; None without ground truth.
        picture: data URI of the drawn match; None if a file cannot be read.
        fault: reason why there is no picture.
        position: position of the database image in words.
        geo: geo: URI of the position.
    """

    label: str
    image: str
    facts: tuple[str, ...]
    right: bool | None = None
    picture: str | None = None
    fault: str | None = None
    position: str | None = None
    geo: str | None = None


@dataclass(frozen=True)
class ShownQuery:
    """One query.

    Args:
        id: id of its element in the page.
        query: path of the query.
        outcome: one of the outcomes above.
        remark: explanation of the outcome in words.
        matches: its matches.
        probability: probability of its best match, if known.
        confidence: result of `confidence_of` for its localization.
        estimate: estimated position and its uncertainty in words.
        geo: geo: URI of the estimate.
    """

    id: str
    query: str
    outcome: str
    remark: str
    matches: tuple[ShownMatch, ...] = ()
    probability: float | None = None
    confidence: str | None = None
    estimate: tuple[str, str] | None = None
    geo: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of figures with a note."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


@dataclass(frozen=True)
class Report:
    """Content of a report; `selection` describes the choice and the order of the queries shown."""

    title: str
    facts: tuple[tuple[str, str], ...]
    selection: str
    queries: tuple[ShownQuery, ...]
    table: Table | None = None
    charts: tuple[Chart, ...] = ()
    map: PositionMap | None = None
    notes: tuple[str, ...] = ()

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of shown queries by outcome."""
        return dict(Counter(query.outcome for query in self.queries))

    @property
    def has_probabilities(self) -> bool:
        """Whether any query has a probability."""
        return any(query.probability is not None for query in self.queries)


def picture_of(
    query: Image, candidate: Path, verification: Verification | None, grey_levels: GreyLevels = FULL_RANGE
) -> tuple[str | None, str | None]:
    """Draw a match for `ShownMatch.picture`, or return the reason for `ShownMatch.fault`."""
    try:
        # Its size was allowed when it was indexed.
        image = decode_image(candidate, max_pixels=None, grey_levels=grey_levels)
        drawn = draw_match(query, image, verification or NOT_VERIFIED, side_px=_SIDE_PX)
    except ImageError as error:
        return None, str(error)
    return data_uri(jpeg(drawn, side_px=max(drawn.shape))), None


def write_report(report: Report, path: Path) -> None:
    """Write a report; bytes of file names that are not UTF-8 become question marks."""
    environment = Environment(
        loader=PackageLoader("vpr_dhe.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["readable_name"] = readable_name
    html = environment.get_template("report.html").render(report=report)
    path.write_text(html, encoding="utf-8", errors="replace")
