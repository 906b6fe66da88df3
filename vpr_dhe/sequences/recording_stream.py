"""Stream of the frames of a recording."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import apart
from vpr_dhe.images.loading import decode_pixels
from vpr_dhe.recordings.base import FrameSource, RecordedFrame
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.records import Progress
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.odometry import Odometry


def recorded_frames(
    source: FrameSource, selection: Selection, progress: Progress = lambda _: None
) -> Iterator[SequenceFrame]:
    """Selected frames of a recording; process each before requesting the next.

    Names are those that `extract_frames` gives the files, without extensions. The odometry is the distance between
    consecutive positions if both are known. `progress` is called for each frame read.

    Raises:
        DatasetError: if the recording is damaged, or none of its frames is selected.
    """
    before: RecordedFrame | None = None
    for frame in selection.of(_counted(source.frames(), progress)):
        yield SequenceFrame(
            partial(_decoded, frame), frame.time_s, _moved(before, frame), f"{source.name}/{frame.stem}"
        )
        before = frame
    if before is None:
        missing = "no frames" if selection.min_metres is None else "no frames with a position"
        raise DatasetError(f"{source.identity} cannot be localized: it has {missing}")


def _counted(frames: Iterator[RecordedFrame], progress: Progress) -> Iterator[RecordedFrame]:
    for frame in frames:
        progress(1)
        yield frame


def _decoded(frame: RecordedFrame) -> np.ndarray:
    return decode_pixels(frame.image().content)


def _moved(before: RecordedFrame | None, frame: RecordedFrame) -> Odometry | None:
    distance_m = None if before is None else apart(before.position, frame.position)
    return None if distance_m is None else Odometry(distance_m)
