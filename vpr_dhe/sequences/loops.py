"""Loops that a way closes: frames that show where the camera was before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vpr_dhe.records import RankedMatch
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame


@dataclass(frozen=True)
class Loop:
    """A frame, and an earlier one that shows the same place.

    `match` is what the frame's own candidates say of the earlier one, `match.image` its name; `probability` is what the
    frames together say of its place.
    """

    query: str
    timestamp_s: float | None
    match: RankedMatch
    match_timestamp_s: float | None
    probability: float


def loops_among(frames: Iterable[LocalizedFrame], min_probability: float) -> Iterator[Loop]:
    """The loops of a stream whose places are its own earlier frames, as `FrameMemory` makes them.

    A loop is closed where the likeliest place is at least so probable, and likelier than none. A place that the belief
    went to without a look, its image being no candidate of the frame, makes no pair.
    """
    times: dict[str, float | None] = {}
    for frame in frames:
        if frame.name is not None:
            times[frame.name] = frame.timestamp_s
        best = frame.belief.best if frame.belief else None
        if frame.localization is None or best is None or best.probability < min_probability:
            continue
        match = next((match for match in frame.localization.matches if match.image == best.image), None)
        if match is not None:
            yield Loop(frame.name or "", frame.timestamp_s, match, times.get(match.image), best.probability)
