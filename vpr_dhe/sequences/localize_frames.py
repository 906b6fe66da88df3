"""Localization of the frames of a stream, each independently, or all as one traverse."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vpr_dhe.errors import ImageError
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Near
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.motion import PositionMotion
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame, SequenceLocalizer


def localize_frames(
    localizer: Localizer,
    frames: Iterable[SequenceFrame],
    *,
    top_k: int = 5,
    min_probability: float | None = None,
    near: Near | None = None,
) -> Iterator[LocalizedFrame]:
    """Localize frames independently of one another, with the arguments of `Localizer.localize`.

    A frame that cannot be read has an error instead of a localization.

    Raises:
        BadInputError, IndexDamagedError: as for `Localizer.localize`.
    """
    number = -1
    for frame in frames:
        number += 1 + frame.dropped
        localized = LocalizedFrame(number, frame.name, frame.timestamp_s, frame.dropped)
        try:
            found = localizer.localize(frame.read(), top_k=top_k, min_probability=min_probability, near=near)
        except ImageError as error:
            yield replace(localized, error=str(error))
        else:
            yield replace(localized, localization=found)


def follow_frames(
    localizer: Localizer,
    frames: Iterable[SequenceFrame],
    *,
    top_k: int = 5,
    max_step_m: float | None = None,
    max_speed_m_s: float | None = None,
) -> Iterator[LocalizedFrame]:
    """Localize the consecutive frames of one traverse, with a belief after each; see `SequenceLocalizer.stream`.

    Args:
        localizer: over an index on this machine, without an early stop.
        frames: in chronological order.
        top_k: number of matches and of places per frame.
        max_step_m: maximum distance between frames, by the positions of the index.
        max_speed_m_s: maximum speed, by the times of frames and the positions of the index. Without either bound, the
            camera moves along the order of the indexed images.

    Raises:
        BadInputError: if the localizer stops early, or motion is bounded and the index has no positions.
    """
    sequence = SequenceLocalizer(localizer)
    places = sequence.place_map()
    motion = None
    if max_step_m is not None or max_speed_m_s is not None:
        motion = PositionMotion(places, max_step_m=max_step_m, max_speed_m_s=max_speed_m_s)
    return sequence.stream(frames, tracker=sequence.tracker(places, motion), top_k=top_k)
