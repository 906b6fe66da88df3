"""Loop closures of a stream: frames that show a place seen before."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.grey_levels import find_grey_levels
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.models.network_file import load_networks
from vpr_dhe.recordings.extraction import frames_folder
from vpr_dhe.records import GreyLevels, Progress, RankedMatch, StrPath
from vpr_dhe.runtime.choices import AUTO, FP32, Precision, Runtime, features_precision
from vpr_dhe.sequences.frame_memory import FrameMemory, Recent
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.motion import RouteMotion
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame, SequenceLocalizer
from vpr_dhe.verification.build import build_verifier, require_used
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import DEFAULT_VERIFIER

# A robot that turns round sees a place again within seconds; one or two frames a second are usual.
_RECENT_SECONDS, _RECENT_FRAMES = 30.0, 30
_LEVEL_FRAMES = 32


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


def find_loops(
    frames: Iterable[SequenceFrame],
    *,
    index: StrPath | None = None,
    images_folder: StrPath | None = None,
    keep_times: bool = True,
    bit_depth: str = AUTO,
    model: str = DEFAULT_MODEL,
    verifier: str = DEFAULT_VERIFIER,
    weights: Iterable[StrPath] = (),
    rerank: int = 20,
    ignore_seconds: float | None = None,
    ignore_frames: int | None = None,
    min_probability: float = 0.5,
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: Precision = FP32,
    remembered: Progress = lambda _: None,
    skipped: Callable[[str, str], object] = lambda _name, _reason: None,
    blank: Callable[[str], object] = lambda _name: None,
) -> Generator[Loop, None, None]:
    """Find the loops that frames close, each as soon as its frame is localized.

    Frames are durable once the generator ends or is closed.

    Args:
        frames: in the order they were taken, each with a unique name.
        index: new folder that keeps the frames as an index; without one, nothing is kept.
        images_folder: folder of the frames that are files, where those that are pixels are written; by default beside
            the index.
        keep_times: store times of frames with their images; they count from the Unix epoch then.
        bit_depth: grey levels of 16-bit frames, as for `PlaceIndex.create`; `auto` finds them from the first 32 frames.
        model: by name, as for `load_extractor`.
        verifier: by name.
        weights: network files of verifiers that need one.
        rerank: number of earlier frames to verify per frame, at least 1.
        ignore_seconds: age up to which frames close no loop; by default 30 if frames have times.
        ignore_frames: number of last frames that close no loop; by default 30 without times, otherwise 0.
        min_probability: minimum probability of a loop, in [0, 1].
        device: a torch device.
        runtime: as for `load_extractor`.
        precision: of features and of the DHE head; `int8` is of the head alone.
        remembered: called with the number of frames just added to the index.
        skipped: called with the name of a frame that cannot be read, and the reason.
        blank: called with the name of a frame without texture, which closes no loop.

    Raises:
        BadInputError: if seconds are to be ignored and frames have no times, or a frame has no usable name.
        ModelError, VerifierError: if model or verifier are unknown, or do not fit each other.
    """
    frames = iter(frames)
    first = list(islice(frames, 1))
    if bit_depth == AUTO:
        first, levels = _first_frames(first, frames)
        bit_depth = AUTO if levels is None else f"{levels.low}:{levels.high}"
    recent = _recent(ignore_seconds, ignore_frames, timed=any(frame.timestamp_s is not None for frame in first))
    extractor = load_extractor(model, device, precision=features_precision(precision), runtime=runtime)
    resources = Resources(extractor, load_networks(weights), device, precision)
    require_used(resources, [verifier])
    built = build_verifier(verifier, resources)

    def found() -> Generator[Loop, None, None]:
        with _kept(index) as folder:
            traverse = PlaceIndex.create(
                folder, extractor.spec, images_folder or frames_folder(folder), bit_depth=bit_depth
            )
            with FrameMemory(traverse, built, recent=recent, keep_times=keep_times) as memory:
                sequence = SequenceLocalizer(Localizer(memory, extractor, rerank=rerank), memory)
                # Driving back passes the same places in reverse order.
                tracker = sequence.tracker(sequence.place_map(), RouteMotion(slowest=-2))
                localized = sequence.stream(chain(first, frames), tracker=tracker, top_k=rerank)
                yield from loops_among(_reporting(localized, remembered, skipped, blank), min_probability)

    return found()


def _first_frames(
    first: list[SequenceFrame], others: Iterator[SequenceFrame]
) -> tuple[list[SequenceFrame], GreyLevels | None]:
    """The first frames of a stream, and their grey levels if they have 16 bits; then more are read to find them.

    The first that can be read decides.
    """
    read = [_read(frame) for frame in first]
    while all(callable(frame.image) for frame in read) and len(read) < _LEVEL_FRAMES:
        following = next(others, None)
        if following is None:
            break
        read.append(_read(following))
    levels = _levels(read)
    if levels is None:
        return read, None
    read += map(_read, islice(others, _LEVEL_FRAMES - len(read)))
    return read, _levels(read)


def _levels(frames: Sequence[SequenceFrame]) -> GreyLevels | None:
    return find_grey_levels([frame.image for frame in frames if not callable(frame.image)])


def _read(frame: SequenceFrame) -> SequenceFrame:
    """The frame with its pixels, because those of a recording last until the next one is read."""
    if not callable(frame.image):
        return frame
    try:
        return replace(frame, image=frame.image())
    except ImageError:
        return frame  # raised again, and reported, where it is localized


def _recent(seconds: float | None, frames: int | None, *, timed: bool) -> Recent:
    """Frames that close no loop: the last ones, and with times those of the last seconds."""
    if seconds is not None and not timed:
        raise BadInputError("--ignore-seconds needs times; give them by --times, or use --ignore-frames")
    if timed:
        return Recent(frames or 0, _RECENT_SECONDS if seconds is None else seconds)
    return Recent(_RECENT_FRAMES if frames is None else frames)


@contextmanager
def _kept(index: StrPath | None) -> Generator[Path, None, None]:
    """The folder of the index, which is gone afterwards unless it was asked for."""
    if index is not None:
        yield Path(index)
        return
    with TemporaryDirectory(prefix="vpr-dhe-") as folder:
        yield Path(folder) / "traverse"


def _reporting(
    frames: Iterable[LocalizedFrame],
    remembered: Progress,
    skipped: Callable[[str, str], object],
    blank: Callable[[str], object],
) -> Iterator[LocalizedFrame]:
    for frame in frames:
        if frame.localization is not None and frame.localization.blank:
            blank(frame.name or "")
        if frame.error is None:
            remembered(1)
        else:
            skipped(frame.name or "", frame.error)
        yield frame


def loops_among(frames: Iterable[LocalizedFrame], min_probability: float) -> Iterator[Loop]:
    """Loop closures of a stream localized against its own earlier frames (`FrameMemory`).

    A loop is closed if the most probable place has at least `min_probability` and exceeds "unknown". Places whose image
    is not among the frame's own candidates, or has no homography to it, make no pair, nor do blank frames.
    """
    times: dict[str, float | None] = {}
    for frame in frames:
        if frame.name is not None:
            times[frame.name] = frame.timestamp_s
        best = frame.belief.best if frame.belief else None
        if frame.localization is None or frame.localization.blank:
            continue
        if best is None or best.probability < min_probability:
            continue
        match = next((match for match in frame.localization.matches if match.image == best.image), None)
        if match is not None and (match.verification is None or match.homography is not None):
            yield Loop(frame.name or "", frame.timestamp_s, match, times.get(match.image), best.probability)
