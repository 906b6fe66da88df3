"""The frames of a recording as a stream."""

from collections.abc import Iterator
from functools import partial

from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import apart
from vpr_dhe.images import decode_image
from vpr_dhe.recordings.base import FrameSource, RecordedFrame
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.records import Image, Progress
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.odometry import Odometry


def recorded_frames(
    source: FrameSource, selection: Selection, progress: Progress = lambda _: None
) -> Iterator[SequenceFrame]:
    """The frames of a recording that are selected, each to be looked at before the next is asked for.

    Their names are those that `extract_frames` gives their files, without extensions. How far one is from the one
    before is their odometry where the positions of both are known. `progress` is told of each frame that was read.

    Raises:
        DatasetError: if the recording is damaged, or no frame of it is selected.
    """
    before: RecordedFrame | None = None
    for frame in selection.of(_counted(source.frames(), progress)):
        yield SequenceFrame(
            partial(_decoded, frame), frame.time_s, _moved(before, frame), f"{source.name}/{frame.stem}"
        )
        before = frame
    if before is None:
        reason = "there is none" if selection.min_metres is None else "there is none with a position"
        raise DatasetError(f"none of {source.identity} can be looked at: {reason}")


def _counted(frames: Iterator[RecordedFrame], progress: Progress) -> Iterator[RecordedFrame]:
    for frame in frames:
        progress(1)
        yield frame


def _decoded(frame: RecordedFrame) -> Image:
    return decode_image(frame.image().content)


def _moved(before: RecordedFrame | None, frame: RecordedFrame) -> Odometry | None:
    distance_m = None if before is None else apart(before.position, frame.position)
    return None if distance_m is None else Odometry(distance_m)
