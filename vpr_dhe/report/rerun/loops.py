"""Recording of loop closures."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vpr_dhe.errors import ImageError
from vpr_dhe.geography.distance import reference_frame_of
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.loading import load_image
from vpr_dhe.records import NOT_VERIFIED, RECONSTRUCTION, Image, ImageRecord, Position, StrPath
from vpr_dhe.report.pictures.encoding import jpeg
from vpr_dhe.report.rerun.ground import Ground
from vpr_dhe.report.rerun.recording import BLUE, GREY, ORANGE, RED, Recording, recorded
from vpr_dhe.runtime.extras import require_extra
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.loops import Loop


@dataclass(frozen=True)
class _Frame:
    """Recorded frame: its number, its time, and its file."""

    number: int
    timestamp_s: float | None
    file: Path


class LoopReplay:
    """Recording of a traverse and its loop closures: `frame`, `match`, `loops`, `map` and `log`.

    Args:
        recording: recording opened by `replay_of_loops`.
        ground: map of the positions of the frames.
        positions: positions of frames by name.
        folder: temporary folder for images of frames that are not files.
    """

    def __init__(self, recording: Recording, ground: Ground, positions: Mapping[str, Position], folder: Path) -> None:
        self._recording, self._ground, self._positions, self._folder = recording, ground, positions, folder
        self._frames: dict[str, _Frame] = {}

    def tap_frames(self, frames: Iterable[SequenceFrame]) -> Iterator[SequenceFrame]:
        """Yield the frames of the traverse, recording each one first."""
        for number, frame in enumerate(frames):
            yield self._add(number, frame)

    def tap_loops(self, loops: Iterable[Loop]) -> Iterator[Loop]:
        """Yield loop closures, recording each one first."""
        import rerun as rr

        pairs: list[tuple[int, int]] = []
        edges: list[list[Position]] = []
        for loop in loops:
            later, earlier = self._frames[loop.query], self._frames[loop.match.image]
            pairs.append((earlier.number, later.number))
            self._add_loop(loop, later, earlier)
            edges += [ends] if len(ends := self._ends(loop)) == 2 else []
            yield loop
        self._recording.log("loops/all", rr.Points2D(pairs, colors=ORANGE, radii=-3.0), static=True)
        self._ground.lines(self._recording, "map/loops", edges, ORANGE, static=True)

    def _add(self, number: int, frame: SequenceFrame) -> SequenceFrame:
        """Record a frame and return it; a frame that is not a file is decoded and returned with its pixels."""
        name, recording = frame.name or str(number), self._recording
        recording.at(number, frame.timestamp_s)
        file = frame.image if isinstance(frame.image, Path) else self._folder / f"{number:06d}.jpg"
        self._frames[name] = _Frame(number, frame.timestamp_s, file)
        self._ground.points(recording, "map/frame", [self._positions.get(name)], BLUE, 7.0)
        try:
            read = frame.read()
            image = load_image(read)
        except ImageError as error:
            recording.note(f"{name}: {error}", level="WARN")
            return frame
        recording.image("frame/image", image)
        if file is not frame.image:
            file.write_bytes(jpeg(image, side_px=max(image.shape)))
        return frame if read is frame.image or isinstance(read, Path) else _with_pixels(frame, read)

    def _add_loop(self, loop: Loop, later: _Frame, earlier: _Frame) -> None:
        import rerun as rr

        recording = self._recording
        recording.at(later.number, later.timestamp_s)
        recording.log("loops/newest", rr.Points2D([(earlier.number, later.number)], colors=RED, radii=-5.0))
        self._ground.lines(recording, "map/loop", [self._ends(loop)], RED)
        recording.number("probability/loop", loop.probability)
        recording.number("inliers/loop", float(loop.match.inliers))
        recording.note(f"{loop.query}: {loop.match.image}, probability {loop.probability:.2f}")
        images = [_decoded(one.file) for one in (later, earlier)]
        if images[0] is not None and images[1] is not None:
            recording.match("match", images[0], images[1], loop.match.verification or NOT_VERIFIED)

    def _ends(self, loop: Loop) -> list[Position]:
        return [at for name in (loop.query, loop.match.image) if (at := self._positions.get(name)) is not None]


def _with_pixels(frame: SequenceFrame, pixels: object) -> SequenceFrame:
    return replace(frame, image=lambda: pixels)


def _decoded(file: Path) -> Image | None:
    try:
        return decode_named(file)
    except (ImageError, OSError):
        return None


@contextmanager
def replay_of_loops(path: StrPath, records: Iterable[ImageRecord]) -> Iterator[LoopReplay]:
    """Context of a recording of a traverse to a Rerun file, which is complete after the block.

    Args:
        path: path of the file.
        records: records of the frames with known positions; positions of a reconstruction are not shown.

    Raises:
        MissingExtraError: without the extra `rerun`.
    """
    require_extra("rerun")
    import rerun.blueprint as rrb

    positions = {
        record.path: record.position
        for record in records
        if record.position is not None and reference_frame_of(record.position) != RECONSTRUCTION
    }
    ground = Ground(positions.values())
    pictures = (
        rrb.Spatial2DView(origin="match", name="frame and earlier frame"),
        rrb.Spatial2DView(origin="frame", name="frame"),
    )
    map = [ground.view("map")] if positions else []
    plots = (
        rrb.Spatial2DView(origin="loops", name="loops, by the numbers of both frames"),
        rrb.TimeSeriesView(origin="probability", name="probability"),
    )
    views = rrb.Horizontal(rrb.Vertical(*pictures), rrb.Vertical(*map, *plots))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="vpr-dhe-")))
        recording = stack.enter_context(recorded(path, views))
        ground.lines(recording, "map/traverse", [list(positions.values())], GREY, static=True)
        yield LoopReplay(recording, ground, positions, folder)
