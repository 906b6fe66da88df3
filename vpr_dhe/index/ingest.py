"""From image files to sealed segments; images that cannot be read are set apart."""

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
from vpr_dhe.images import decode_reduced, read_file
from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.rows import Digest, FileStamp, modification_time_ns
from vpr_dhe.index.segments import IndexedImage, SegmentInfo, SegmentWriter, StoredImage
from vpr_dhe.records import Features, Frame, Image, ImageRecord, Progress, Size
from vpr_dhe.runtime.prefetching import ReadAhead, read_ahead, reading_processes
from vpr_dhe.runtime.threads import on_one_core


@dataclass(frozen=True)
class Chunk:
    """Images that become one segment; the id of the one at place i is `first_id` + i, so a skipped one leaves a gap."""

    first_id: int
    records: Sequence[ImageRecord]

    @property
    def next_id(self) -> int:
        """The first id after those of the chunk."""
        return self.first_id + len(self.records)


@dataclass(frozen=True)
class ExtractedImage:
    """One image with all that will be stored of it."""

    place: int
    indexed: IndexedImage
    stamp: FileStamp
    features: Features


@dataclass(frozen=True)
class SealedChunk:
    """What became of a chunk: the images in `segment`, by their paths, and those that could not be read.

    `segment` is None where no image could be read; `next_id` follows the ids that the chunk was given.
    """

    segment: SegmentInfo | None
    paths: frozenset[str]
    skipped: tuple[SkippedImage, ...]
    next_id: int


@dataclass(frozen=True)
class Source:
    """Where images come from and how they are described; all that extraction needs besides the images' names.

    `strict` makes the first unreadable image an error instead of skipping it; `read_ahead` is who reads.
    """

    folder: Path
    extractor: Extractor
    batch_size: int = 8
    strict: bool = False
    read_ahead: ReadAhead = read_ahead


MAX_WORKERS = 256
"""More than that is a slip."""


def reading(workers: int) -> AbstractContextManager[ReadAhead]:
    """Who reads images: so many processes, or threads of this one where that is 0.

    Raises:
        BadInputError: if there are fewer than none, or more than any machine has cores.
    """
    if not 0 <= workers <= MAX_WORKERS:
        raise BadInputError(f"{workers} processes were asked for to decode images; expected 0 to {MAX_WORKERS}")
    if not workers:
        return nullcontext(read_ahead)
    return reading_processes(workers, [__name__, "vpr_dhe.geography.exif"])


@dataclass(frozen=True)
class Loaded:
    """One image as it is in memory, before it is described."""

    image: Image
    original_size: Size
    record: ImageRecord
    stamp: FileStamp


def load(source: Source, records: Iterable[ImageRecord]) -> Generator[Loaded | ImageError]:
    """Decode images, a few ahead of who asks for them."""
    return source.read_ahead(partial(_load, source.folder, source.extractor.spec.input_size), records)


def describe(
    source: Source,
    records: Sequence[ImageRecord],
    loaded: Iterator[Loaded | ImageError],
    progress: Progress = lambda _: None,
) -> Iterator[ExtractedImage | SkippedImage]:
    """Describe images in batches; `loaded` gives them as `load` does, and those of other records after them.

    Each batch is begun before the one before it is given out: a GPU then works while that one is stored.

    Raises:
        ImageError: with `strict`, at the first image that cannot be read.
    """
    begun: Iterator[ExtractedImage] = iter(())
    try:
        for item in _in_batches(source, records, loaded):
            if isinstance(item, SkippedImage):
                yield item
                progress(1)
            else:
                before, begun = begun, _begin(source.extractor, item, progress)
                yield from before
    except (KeyboardInterrupt, ImageError):
        yield from begun
        raise
    yield from begun


def seal_chunk(
    folder: Path,
    chunk: Chunk,
    described: Iterable[ExtractedImage | SkippedImage],
    codec: LocalMapCodec,
    *,
    publish: Callable[[SealedChunk], object],
) -> None:
    """Store a chunk's images, as `describe` yields them, in one segment below `folder`, and hand it to `publish`.

    An interruption from the keyboard, or an image that cannot be read where that is an error, still publishes what was
    extracted so far: the caller will want to go on from there. Any other failure leaves nothing behind.
    """
    writer = SegmentWriter(folder, chunk.first_id)
    paths: list[str] = []
    skipped: list[SkippedImage] = []

    def seal() -> None:
        try:
            segment = writer.seal()
        except BaseException:
            writer.discard()
            raise
        publish(SealedChunk(segment, frozenset(paths[: writer.count]), tuple(skipped), chunk.next_id))

    try:
        for item in described:
            if isinstance(item, SkippedImage):
                skipped.append(item)
            else:
                paths.append(item.indexed.record.path)
                writer.append(_stored(chunk.first_id + item.place, item, codec))
    except (KeyboardInterrupt, ImageError):
        seal()
        raise
    except BaseException:
        writer.discard()
        raise
    seal()


def _stored(id: int, item: ExtractedImage, codec: LocalMapCodec) -> StoredImage:
    vector = item.features.global_descriptor.cpu().numpy()
    # Readers are at work meanwhile.
    local_map = on_one_core(codec.encode, item.features.local_map)
    return StoredImage(id, item.indexed, item.stamp, vector, local_map)


def _load(folder: Path, input_size: Size, record: ImageRecord) -> Loaded:
    """Read a file once: for its pixels, as many as the extractor needs, its metadata and its digest."""
    path = folder / record.path
    # Before the content: a file that is written to meanwhile is then seen to have changed when next compared.
    modified_ns = modification_time_ns(path)
    content = read_file(path)
    stamp = FileStamp(len(content), modified_ns, Digest.of(content))
    # The readers of places import pandas, which a query needs for nothing.
    from vpr_dhe.geography.exif import with_exif

    return Loaded(*decode_reduced(content, input_size), with_exif(record, content), stamp)


_Batch: TypeAlias = dict[int, Loaded]
"""Images by their places among the records."""


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


def _begin(extractor: Extractor, batch: _Batch, progress: Progress) -> Iterator[ExtractedImage]:
    """Describe a batch now; what comes back waits for a GPU to be done with it when it is first looked at."""
    features = extractor.extract([loaded.image for loaded in batch.values()])
    return _described(extractor.spec, batch, features, progress)


def _described(
    spec: ExtractorSpec, batch: _Batch, described: Sequence[Features], progress: Progress
) -> Iterator[ExtractedImage]:
    for (place, loaded), features in zip(batch.items(), described, strict=True):
        indexed = IndexedImage(loaded.record, loaded.original_size)
        vector = comparable(features.global_descriptor, spec)
        frame = Frame(loaded.original_size, features.frame.input_size)
        yield ExtractedImage(place, indexed, loaded.stamp, replace(features, global_descriptor=vector, frame=frame))
    progress(len(batch))


def comparable(
    descriptors: Float[Tensor, "*images dimension"], spec: ExtractorSpec
) -> Float32[Tensor, "*images dimension"]:
    """The boundary of the index: single precision, finite, and of unit norm where the model is searched so.

    Raises:
        ModelError: if a descriptor is not finite.
    """
    if not torch.isfinite(descriptors).all():
        raise ModelError(f"model {spec.model!r} gave a descriptor that is not finite; its weights are unusable")
    return normalize(descriptors.float(), dim=-1) if spec.unit_norm else descriptors.float()
