"""From image records to decoded batches, unreadable images set apart."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vpr_dhe.errors import ImageError
from vpr_dhe.images import decode_ahead, image_size
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.segments import FileStamp, IndexedImage
from vpr_dhe.records import Image, ImageRecord


@dataclass
class Batch:
    """Decoded images with what is known of them, and the images between them that could not be read."""

    rows: list[IndexedImage] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    skipped: list[SkippedImage] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows) + len(self.skipped)


def decoded_batches(folder: Path, records: Sequence[ImageRecord], *, batch_size: int, strict: bool) -> Iterator[Batch]:
    """Decode images, a few ahead of the caller, in batches of `batch_size` readable ones.

    Raises:
        ImageError: with `strict`, at the first image that cannot be read.
    """
    batch = Batch()
    for record, decoded in zip(records, decode_ahead([folder / record.path for record in records]), strict=True):
        if isinstance(decoded, ImageError):
            if strict:
                raise ImageError(f"{record.path}: {decoded}")
            batch.skipped.append(SkippedImage(record.path, str(decoded)))
        else:
            batch.rows.append(IndexedImage(record, image_size(decoded), _stamp(folder / record.path)))
            batch.images.append(decoded)
        if len(batch.images) == batch_size:
            yield batch
            batch = Batch()
    if len(batch):
        yield batch


def _stamp(path: Path) -> FileStamp:
    with suppress(OSError):
        status = path.stat()
        return FileStamp(status.st_size, status.st_mtime_ns)
    return FileStamp(0, 0)
