"""Extraction of image files into sealed segments; unreadable images are skipped."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.errors import BadInputError, ImageError, ModelError
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.images.decoding import decode_reduced
from vpr_dhe.images.opened import CUT_WARNING, FULL_RANGE, read_file
from vpr_dhe.images.view_names import view_of
from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.panorama_views import turned
from vpr_dhe.index.rows import Digest, FileStamp, modification_time_ns
from vpr_dhe.index.segments import IndexedImage, SegmentInfo, SegmentWriter, StoredImage
from vpr_dhe.records import Features, Frame, GreyLevels, Image, ImageRecord, Progress, Size
from vpr_dhe.runtime.choices import MAX_PIXELS
from vpr_dhe.runtime.prefetching import ReadAhead, read_ahead, reading_processes
from vpr_dhe.runtime.threads import on_one_core

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """Images of one segment; image i gets the id `first_id` + i, so skipped images leave gaps."""

    first_id: int
    records: Sequence[ImageRecord]

    @property
    def next_id(self) -> int:
        """First id after those of the chunk."""
        return self.first_id + len(self.records)


@dataclass(frozen=True)
class UnusedPosition:
    """Path of an image whose metadata states a position that cannot be used, with the reason in a few words."""

    path: str
    reason: str


@dataclass(frozen=True)
class ExtractedImage:
    """Features and metadata of one image, ready to be stored; `place` is its position in the chunk."""

    place: int
    indexed: IndexedImage
    stamp: FileStamp
    features: Features
    unused: UnusedPosition | None = None


@dataclass(frozen=True)
class SealedChunk:
    """Result of a chunk: its segment with the paths of its images, and the images or positions that could not be read.

    `segment` is None if no image could be read; `next_id` follows the ids of the chunk; `blank` are the paths of images
    that match nothing.
    """

    segment: SegmentInfo | None
    paths: frozenset[str]
    skipped: tuple[SkippedImage, ...]
    next_id: int
    blank: tuple[str, ...] = ()
    unused: tuple[UnusedPosition, ...] = ()


@dataclass(frozen=True)
class Source:
    """Source of features: folders of images, an extractor, and how images are read.

    `strict` makes the first unreadable image an error instead of skipping it; `grey_levels` are those of 16-bit images;
    images of more than `max_pixels` count as unreadable.
    """

    folders: ImageFolders
    extractor: Extractor
    batch_size: int = 8
    strict: bool = False
    read_ahead: ReadAhead = read_ahead
    grey_levels: GreyLevels = FULL_RANGE
    max_pixels: int = MAX_PIXELS


MAX_WORKERS = 256
"""Largest number of processes; more are most likely a mistake."""


def reading(workers: int) -> AbstractContextManager[ReadAhead]:
    """Start processes that read images, or take threads of this process if `workers` is 0.

    Raises:
        BadInputError: if `workers` is negative or larger than MAX_WORKERS.
    """
    if not 0 <= workers <= MAX_WORKERS:
        raise BadInputError(f"{workers} processes were asked for to decode images; expected 0 to {MAX_WORKERS}")
    if not workers:
        return nullcontext(read_ahead)
    return reading_processes(workers, [__name__, "vpr_dhe.geography.exif"])


@dataclass(frozen=True)
class Loaded:
    """Decoded image, before extraction."""

    image: Image
    original_size: Size
    record: ImageRecord
    stamp: FileStamp
    unused: UnusedPosition | None = None


def load(source: Source, records: Iterable[ImageRecord]) -> Generator[Loaded | ImageError]:
    """Decode images, a few ahead of the caller."""
    size = source.extractor.spec.input_size
    return source.read_ahead(partial(_load, source.folders, size, source.grey_levels, source.max_pixels), records)


def extract(
    source: Source,
    records: Sequence[ImageRecord],
    loaded: Iterator[Loaded | ImageError],
    progress: Progress = lambda _: None,
) -> Iterator[ExtractedImage | SkippedImage]:
    """Extract features in batches; `loaded` yields the images of these records, and possibly others after them.

    Each batch is started before the previous one is yielded, so that a GPU works while that one is stored.

    Raises:
        ImageError: with `strict`, at the first image that cannot be read.
    """
    started: Iterator[ExtractedImage | SkippedImage] = iter(())
    try:
        for item in _in_batches(source, records, loaded):
            if isinstance(item, SkippedImage):
                yield item
                progress(1)
            else:
                previous, started = started, _start(source, item, progress)
                yield from previous
    except (KeyboardInterrupt, ImageError):
        yield from started
        raise
    yield from started


def seal_chunk(
    folder: Path,
    chunk: Chunk,
    extracted: Iterable[ExtractedImage | SkippedImage],
    codec: LocalMapCodec,
    *,
    publish: Callable[[SealedChunk], object],
) -> None:
    """Store a chunk's images, as yielded by `extract`, in one segment below `folder`, and pass it to `publish`.

    Images that were extracted before a keyboard interrupt or an ImageError are still published. Other failures leave
    nothing behind.
    """
    writer = SegmentWriter(folder, chunk.first_id)
    paths: list[str] = []
    skipped: list[SkippedImage] = []
    blank: list[str] = []
    unused: list[UnusedPosition] = []

    def seal() -> None:
        try:
            segment = writer.seal()
        except BaseException:
            writer.discard()
            raise
        sealed = SealedChunk(
            segment, frozenset(paths[: writer.count]), tuple(skipped), chunk.next_id, tuple(blank), tuple(unused)
        )
        publish(sealed)

    try:
        for item in extracted:
            if isinstance(item, SkippedImage):
                skipped.append(item)
            else:
                paths.append(item.indexed.record.path)
                unused += [item.unused] if item.unused else []
                writer.append(_stored(chunk.first_id + item.place, item, codec))
                if item.features.is_blank:
                    blank.append(item.indexed.record.path)
    except (KeyboardInterrupt, ImageError):
        seal()
        raise
    except BaseException:
        writer.discard()
        raise
    seal()


def _stored(id: int, item: ExtractedImage, codec: LocalMapCodec) -> StoredImage:
    vector = item.features.global_descriptor.cpu().numpy()
    # On one core, because readers use the others.
    local_map = on_one_core(codec.encode, item.features.local_map)
    code = item.features.code
    return StoredImage(
        id, item.indexed, item.stamp, vector, local_map, b"" if code is None else code.cpu().numpy().tobytes()
    )


def _load(
    folders: ImageFolders, input_size: Size, grey_levels: GreyLevels, max_pixels: int, record: ImageRecord
) -> Loaded:
    """Read a file once for its pixels (at the resolution that the extractor needs), metadata and digest."""
    path = folders.locate(record.path)
    view = view_of(path)
    # Read before the content, so that a file that is written meanwhile counts as changed in the next comparison.
    modified_ns = modification_time_ns(path)
    content = read_file(path, max_pixels)
    stamp = FileStamp(len(content), modified_ns, Digest.of(content, view))
    # Imported here, because importing it takes time that a query can do without.
    from vpr_dhe.geography.exif import filled_in, is_complete, read_exif

    yaw_deg = None if view is None else view.yaw_deg
    decoded = decode_reduced(content, input_size, max_pixels=max_pixels, grey_levels=grey_levels, yaw_deg=yaw_deg)
    if decoded.is_cut:
        _log.warning("%s: %s", record.path, CUT_WARNING)
    if is_complete(record):
        return Loaded(decoded.image, decoded.original_size, record, stamp)
    info = read_exif(content, path if view is None else view.file)
    if view is not None:
        info = replace(info, heading_deg=turned(info.heading_deg, view.yaw_deg))
    fault = info.position_fault if record.position is None else None
    unused = UnusedPosition(record.path, fault) if fault else None
    return Loaded(decoded.image, decoded.original_size, filled_in(record, info), stamp, unused)


_Batch: TypeAlias = dict[int, Loaded]
"""Images by position among the records."""


def _in_batches(
    source: Source, records: Sequence[ImageRecord], loaded: Iterator[Loaded | ImageError]
) -> Iterator[_Batch | SkippedImage]:
    batch: _Batch = {}
    for place, record in enumerate(records):
        found = next(loaded)
        if isinstance(found, ImageError):
            if source.strict:
                raise ImageError(f"{record.path}: {found}")
            yield SkippedImage(record.path, str(found))
            continue
        batch[place] = found
        if len(batch) == source.batch_size:
            yield batch
            batch = {}
    if batch:
        yield batch


def _start(source: Source, batch: _Batch, progress: Progress) -> Iterator[ExtractedImage | SkippedImage]:
    """Start the extraction of a batch; a GPU is waited for when the first result is used."""
    features = source.extractor.extract([loaded.image for loaded in batch.values()])
    return _extracted(source, batch, features, progress)


def _extracted(
    source: Source, batch: _Batch, extracted: Sequence[Features], progress: Progress
) -> Iterator[ExtractedImage | SkippedImage]:
    finite = [bool(torch.isfinite(features.global_descriptor).all()) for features in extracted]
    for (place, loaded), features, is_finite in zip(batch.items(), extracted, finite, strict=True):
        # One image may overflow in a narrow precision; a whole batch does by the fault of the weights.
        if not is_finite and (any(finite) or len(batch) == 1):
            reason = "the model gave a descriptor that is not finite"
            if source.strict:
                raise ImageError(f"{loaded.record.path}: {reason}")
            yield SkippedImage(loaded.record.path, reason)
            continue
        indexed = IndexedImage(loaded.record, loaded.original_size)
        vector = comparable(features.global_descriptor, source.extractor.spec)
        frame = Frame(loaded.original_size, features.frame.input_size)
        stored = replace(features, global_descriptor=vector, frame=frame)
        yield ExtractedImage(place, indexed, loaded.stamp, stored, loaded.unused)
    progress(len(batch))


def comparable(
    descriptors: Float[Tensor, "*images dimension"], spec: ExtractorSpec
) -> Float32[Tensor, "*images dimension"]:
    """Convert descriptors to the form of the index: float32, finite, and of unit norm if the model says so.

    Raises:
        ModelError: if a descriptor is not finite.
    """
    if not torch.isfinite(descriptors).all():
        raise ModelError(f"model {spec.model!r} gave a descriptor that is not finite; its weights are unusable")
    return normalize(descriptors.float(), dim=-1) if spec.unit_norm else descriptors.float()
