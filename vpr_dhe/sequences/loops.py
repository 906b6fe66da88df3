"""Loop closures of a stream: frames that show a place seen before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vpr_dhe.records import RankedMatch
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame


@dataclass(frozen=True)
class Loop:
    """A frame, and an earlier one that shows the same place.

    `match` is the earlier frame as a candidate of this one, `match.image` its name; `probability` is that of its place
    given all frames.
    """

    query: str
    timestamp_s: float | None
    match: RankedMatch
    match_timestamp_s: float | None
    probability: float


def loops_among(frames: Iterable[LocalizedFrame], min_probability: float) -> Iterator[Loop]:
    """Loop closures of a stream localized against its own earlier frames (`FrameMemory`).

    A loop is closed if the most probable place has at least `min_probability` and exceeds "unknown". Places whose image
    is not among the frame's own candidates make no pair.
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
