"""Recording of single queries or of a sequence."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from vpr_dhe.errors import VprDheError
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import NOT_VERIFIED, Belief, Image, Position, RankedMatch, StrPath
from vpr_dhe.report.rerun.frames import LastFrame
from vpr_dhe.report.rerun.ground import Ground
from vpr_dhe.report.rerun.recording import BLUE, GREEN, GREY, ORANGE, Recording, recorded
from vpr_dhe.report.tables.answers import Answer
from vpr_dhe.report.tables.positions import query_position
from vpr_dhe.runtime.extras import require_extra
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.sequences.frames import SequenceFrame

MAX_IMAGES = 20_000
"""Maximum number of indexed images on the map, evenly sampled; the viewer is slow with more."""


class AnswerReplay:
    """Recording of the answers to queries: `query`, `match`, `candidates`, `map`, `belief`, `inliers` and `log`.

    Args:
        recording: recording opened by `replay_of_answers`.
        index: index of the answers.
        ground: map of the positions of its images.
    """

    def __init__(self, recording: Recording, index: PlaceIndex, ground: Ground) -> None:
        self._recording, self._index, self._ground = recording, index, ground
        self._last = LastFrame()
        self._number = -1
        self._traverse: list[Position] = []

    def tap_frames(self, frames: Iterable[SequenceFrame]) -> Iterator[SequenceFrame]:
        """Yield the frames of the queries, keeping the last one for `add`."""
        return self._last.tap_frames(frames)

    def tap_answers(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Yield answers, recording each one first."""
        for answer in answers:
            self._number += 1
            self.add(answer)
            yield answer
        self._ground.lines(self._recording, "map/traverse", [self._traverse], BLUE, static=True)

    def add(self, answer: Answer) -> None:
        """Record the answer to the last frame."""
        recording = self._recording
        recording.at(self._number, answer.timestamp_s)
        found = answer.localization
        if found is None:
            for entity in ("query", "match", "candidates"):
                recording.clear(entity)
            recording.note(f"{answer.query}: {answer.error}", level="WARN")
            return
        pixels = self._last.pixels(self._index.manifest.levels)
        if pixels is not None:
            recording.image("query/image", pixels)
        recording.table("candidates", _table(found.matches))
        best = found.matches[0] if found.matches else None
        self._add_match(pixels, best)
        self._add_positions(answer, found.matches)
        if best is not None and best.verification is not None:
            recording.number("inliers/best", float(best.inliers))
        if answer.belief is not None:
            self._add_belief(answer.belief)
        recording.note(f"{answer.query}: {best.image if best else 'no match'}")

    def _add_match(self, pixels: Image | None, best: RankedMatch | None) -> None:
        try:
            if pixels is None or best is None or best.id is None:
                self._recording.clear("match")
                return
            candidate = decode_named(self._index.image_path(best.id), self._index.manifest.levels)
        except (VprDheError, OSError) as error:  # images of the map may be missing
            self._recording.note(str(error), level="WARN")
            self._recording.clear("match")
            return
        self._recording.match("match", pixels, candidate, best.verification or NOT_VERIFIED)

    def _add_positions(self, answer: Answer, matches: Sequence[RankedMatch]) -> None:
        recording, ground = self._recording, self._ground
        place = query_position(answer)
        ground.points(recording, "map/candidates", [match.position for match in matches], ORANGE)
        ground.points(recording, "map/query", [place.position] if place else [], BLUE, 7.0)
        ground.ellipse(recording, "map/query/ellipse", place and place.estimate, BLUE)
        if place is not None:
            self._traverse.append(place.position)

    def _add_belief(self, belief: Belief) -> None:
        places = belief.places
        sizes = [2.0 + 10.0 * place.probability for place in places]
        self._ground.points(self._recording, "map/belief", [place.position for place in places], GREEN, sizes)
        self._recording.number("belief/best", places[0].probability if places else 0.0)
        self._recording.number("belief/unknown", belief.unknown)
        rows = [(place.image, f"{place.probability:.3f}") for place in places]
        self._recording.table("belief/places", [("place", "probability"), *rows, ("unknown", f"{belief.unknown:.3f}")])


def _table(matches: Sequence[RankedMatch]) -> list[tuple[str, ...]]:
    header = ("rank", "image", "similarity", "inliers", "probability")
    rows = [
        (
            str(match.rank),
            match.image,
            f"{match.similarity:.3f}",
            "" if match.verification is None or match.skipped else str(match.inliers),
            "" if match.probability is None else f"{match.probability:.2f}",
        )
        for match in matches
    ]
    return [header, *rows]


@contextmanager
def replay_of_answers(path: StrPath, index: PlaceIndex, *, sequence: bool) -> Iterator[AnswerReplay]:
    """Context of a recording of queries to a Rerun file, which is complete after the block.

    Raises:
        MissingExtraError: without the extra `rerun`.
    """
    require_extra("rerun")
    import rerun.blueprint as rrb

    ids = index.ids
    chosen = [index.image(int(id)).position for id in ids[evenly_spread(len(ids), MAX_IMAGES)]]
    known = [position for position in chosen if position is not None]
    ground = Ground(known)
    curves = [rrb.TimeSeriesView(origin="inliers", name="inliers")]
    if sequence:
        curves.insert(0, rrb.TimeSeriesView(origin="belief", name="belief"))
    views = rrb.Horizontal(
        rrb.Vertical(
            rrb.Spatial2DView(origin="match", name="query and best match"),
            rrb.Horizontal(
                rrb.Spatial2DView(origin="query", name="query"),
                rrb.TextDocumentView(origin="candidates", name="candidates"),
            ),
        ),
        rrb.Vertical(*([ground.view("map")] if known else []), *curves),
    )
    with recorded(path, views) as recording:
        ground.points(recording, "map/images", known, GREY, 3.0, static=True)
        yield AnswerReplay(recording, index, ground)
