"""Rerun file, with pictures, matches, texts and numbers.

Source: https://rerun.io/docs/reference/types. Rerun is imported in functions, because it is an extra.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vpr_dhe.records import Image, StrPath, Verification
from vpr_dhe.report.pictures.drawing import side_by_side
from vpr_dhe.report.pictures.encoding import jpeg
from vpr_dhe.runtime.extras import require_extra

APPLICATION = "vpr-dhe"
FRAME, TIME = "frame", "time"
"""Timelines: number of the frame, from 0, and its time if known."""

GREY, BLUE, GREEN, ORANGE, RED = (140, 140, 140), (60, 130, 240), (80, 220, 100), (255, 170, 40), (230, 60, 60)
_SIDE_PX = 640
# Rate at which the viewer plays frames.
_FRAMES_PER_SECOND = 4.0
# Times since the Unix epoch are dates; smaller ones count from the beginning of a video.
_EPOCH_S = 1e8


class Recording:
    """Recording of one run; entities are paths such as `match/inliers`.

    Args:
        stream: a `rerun.RecordingStream`.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def at(self, number: int, timestamp_s: float | None = None) -> None:
        """Set the frame of the following entries."""
        self.stream.set_time(FRAME, sequence=number)
        if timestamp_s is None:
            self.stream.disable_timeline(TIME)
        elif timestamp_s >= _EPOCH_S:
            self.stream.set_time(TIME, timestamp=timestamp_s)
        else:
            self.stream.set_time(TIME, duration=timestamp_s)

    def log(self, entity: str, shown: Any, *, static: bool = False) -> None:
        """Log an object of Rerun, for the current frame or, if static, for all frames."""
        self.stream.log(entity, shown, static=static)

    def clear(self, entity: str) -> None:
        """Clear an entity and its children from the current frame on."""
        import rerun as rr

        self.stream.log(entity, rr.Clear(recursive=True))

    def image(self, entity: str, image: Image) -> None:
        """Log an image, reduced to 640 pixels on its longer side."""
        import rerun as rr

        self.stream.log(entity, rr.EncodedImage(contents=jpeg(image, side_px=_SIDE_PX), media_type="image/jpeg"))

    def match(self, entity: str, query: Image, candidate: Image, verification: Verification) -> None:
        """Log query and candidate side by side, their inliers, and the query's outline in the candidate."""
        import rerun as rr

        found = side_by_side(query, candidate, verification, side_px=_SIDE_PX)
        self.clear(entity)
        self.image_full_size(f"{entity}/image", found.picture)
        if verification.inliers:
            joined = np.stack([found.starts, found.ends], axis=1)
            self.stream.log(f"{entity}/inliers", rr.LineStrips2D(joined, colors=GREEN, radii=rr.Radius.ui_points(1.0)))
        if found.outline is not None:
            # Corners near the horizon may be very far away.
            closed = np.clip(found.outline[[0, 1, 2, 3, 0]], -1e5, 1e5)
            self.stream.log(f"{entity}/outline", rr.LineStrips2D([closed], colors=ORANGE, radii=rr.Radius.ui_points(2)))

    def image_full_size(self, entity: str, image: Image) -> None:
        """Log an image at its full size."""
        import rerun as rr

        content = jpeg(image, side_px=max(image.shape))
        self.stream.log(entity, rr.EncodedImage(contents=content, media_type="image/jpeg"))

    def table(self, entity: str, rows: Sequence[Sequence[str]]) -> None:
        """Log a table with a header as first row."""
        import rerun as rr

        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        ruled = [*lines[:1], "|" + "---|" * len(rows[0]), *lines[1:]]
        self.stream.log(entity, rr.TextDocument("\n".join(ruled), media_type="text/markdown"))

    def number(self, entity: str, value: float) -> None:
        """Log a number as a point of a curve."""
        import rerun as rr

        self.stream.log(entity, rr.Scalars(value))

    def note(self, text: str, *, level: str = "INFO") -> None:
        """Log a line of text."""
        import rerun as rr

        self.stream.log("log", rr.TextLog(text, level=level))


@contextmanager
def recorded(path: StrPath, views: Any) -> Iterator[Recording]:
    """Context of a recording to a file, which is replaced if it exists and is complete after the block.

    Args:
        path: path of the `.rrd` file.
        views: the layout of the viewer, a container of `rerun.blueprint`.

    Raises:
        MissingExtraError: without the extra `rerun`.
    """
    require_extra("rerun")
    import rerun as rr
    import rerun.blueprint as rrb

    stream = rr.RecordingStream(APPLICATION)
    panel = rrb.TimePanel(state="collapsed", timeline=FRAME, fps=_FRAMES_PER_SECOND)
    layout = rrb.Blueprint(views, panel, rrb.BlueprintPanel(state="collapsed"), rrb.SelectionPanel(state="collapsed"))
    stream.save(Path(path), default_blueprint=layout)
    try:
        yield Recording(stream)
    finally:
        stream.disconnect()
