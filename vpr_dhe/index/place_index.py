"""An index of places on disk: made once, opened by many, searched by global descriptor, read by image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.errors import BadInputError, IndexFormatError, ModelError
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.index.ingest import Batch, decoded_batches
from vpr_dhe.index.local_maps import CODEC
from vpr_dhe.index.manifest import FILE_NAME, LOCK_NAME, Manifest, SkippedImage, publish, read_manifest, writing
from vpr_dhe.index.segments import IndexedImage, Segment, SegmentWriter, damaged_files
from vpr_dhe.index.vectors import Neighbours, VectorIndex
from vpr_dhe.records import Frame, ImageRecord, Progress

# Rows per sealed segment: what an interruption can lose at most, and far fewer files than a process may open.
SEGMENT_IMAGES = 2048
_SEGMENTS = "segments"


@dataclass(frozen=True)
class AddReport:
    """What became of the images given to `PlaceIndex.add`."""

    added: int
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class CheckReport:
    """What `PlaceIndex.check` found; `damaged` names files relative to the segments folder."""

    images: int
    skipped: int
    segments: int
    damaged: tuple[str, ...]
    model: str


class PlaceIndex:
    """The features of a map's images, on disk.

    An image is known by its id: its row number over all segments, in the order in which images were added.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._load(manifest)

    def _load(self, manifest: Manifest) -> None:
        self._release()
        self.manifest = manifest
        self._segments = [Segment(self._folder / _SEGMENTS, fact, manifest.spec) for fact in manifest.segments]
        self._starts = [0, *accumulate(fact.count for fact in manifest.segments)]
        vectors = [segment.vectors for segment in self._segments]
        stacked = np.concatenate(vectors) if vectors else np.empty((0, manifest.spec.dimension), np.float32)
        self._vectors = VectorIndex(stacked, unit_norm=manifest.spec.unit_norm)

    def _release(self) -> None:
        for segment in getattr(self, "_segments", ()):
            segment.local_maps.close()

    @classmethod
    def create(cls, folder: Path, spec: ExtractorSpec, images_folder: Path) -> "PlaceIndex":
        """Make an empty index; an index that never held an image is no obstacle.

        Raises:
            BadInputError: if `folder` already exists and holds anything else.
        """
        if folder.exists() and not _is_vacant(folder):
            raise BadInputError(f"{folder} already exists; give the name of a new folder for the index")
        folder.mkdir(parents=True, exist_ok=True)
        manifest = Manifest(spec=spec, images_folder=str(images_folder.resolve()), codec=CODEC)
        publish(manifest, folder)
        return cls(folder, manifest)

    @classmethod
    def open(cls, folder: Path) -> "PlaceIndex":
        """Open an index for reading; everything but the local maps is checked against its checksums now.

        Raises:
            IndexFormatError: if the folder is no index of this format.
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        manifest = read_manifest(folder)
        if manifest.codec != CODEC:
            raise IndexFormatError(f"{folder} stores local maps as {manifest.codec!r}; this version reads {CODEC!r}")
        return cls(folder, manifest)

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self._folder

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor that filled the index."""
        return self.manifest.spec

    def __len__(self) -> int:
        return self.manifest.count

    def add(
        self,
        records: Sequence[ImageRecord],
        extractor: Extractor,
        *,
        batch_size: int = 8,
        strict: bool = False,
        progress: Progress = lambda _: None,
    ) -> AddReport:
        """Extract images and add them, segment by segment; what is sealed stays, whatever happens later.

        Images whose path the index holds already are left as they are.

        Args:
            records: images, with paths relative to the index's images folder.
            extractor: must be the one that filled the index so far.
            batch_size: images per call of the extractor.
            strict: make the first unreadable image an error instead of skipping it.
            progress: called with the number of images just dealt with.

        Raises:
            IndexFormatError: if the extractor is another than the index was made with.
            ImageError: with `strict`, at the first image that cannot be read.
        """
        self.require(extractor.spec)
        with writing(self._folder):
            published = read_manifest(self._folder)
            if published != self.manifest:  # another writer was here since this index was opened
                self._load(published)
            before, skipped = len(self), []
            fresh = self.missing(records)
            try:
                for start in range(0, len(fresh), SEGMENT_IMAGES):
                    chunk = fresh[start : start + SEGMENT_IMAGES]
                    folder = Path(self.manifest.images_folder)
                    batches = decoded_batches(folder, chunk, batch_size=batch_size, strict=strict)
                    skipped += self._add_segment(batches, extractor, progress)
            finally:
                self._load(self.manifest)
            return AddReport(len(self) - before, tuple(skipped))

    def missing(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Those of the records whose paths are not in the index, each once."""
        known = {image.record.path for segment in self._segments for image in segment.images}
        return [record for path, record in {record.path: record for record in records}.items() if path not in known]

    def _add_segment(self, batches: Iterable[Batch], extractor: Extractor, progress: Progress) -> list[SkippedImage]:
        writer = SegmentWriter(self._folder / _SEGMENTS, len(self.manifest.segments))
        skipped: list[SkippedImage] = []
        try:
            for batch in batches:
                described = extractor.extract(batch.images) if batch.images else []
                for row, features in zip(batch.rows, described, strict=True):
                    comparable = self._comparable(features.global_descriptor)
                    writer.append(row, replace(features, global_descriptor=comparable))
                skipped += batch.skipped
                progress(len(batch))
        except KeyboardInterrupt:
            # What was extracted so far is kept: minutes of work, and the caller will want to go on from there.
            self._seal(writer, skipped)
            raise
        except BaseException:
            writer.discard()
            raise
        self._seal(writer, skipped)
        return skipped

    def _seal(self, writer: SegmentWriter, skipped: Sequence[SkippedImage]) -> None:
        manifest = self.manifest.with_skipped(skipped)
        if writer.count:
            manifest = manifest.with_segment(writer.seal()).without_skipped(writer.paths)
        else:
            writer.discard()
        publish(manifest, self._folder)
        self.manifest = manifest

    def require(self, spec: ExtractorSpec) -> None:
        """Raise IndexFormatError unless this extractor's features can be compared with the stored ones."""
        if spec.fingerprint != self.spec.fingerprint:
            raise IndexFormatError(
                f"{self._folder} was made with model {self.spec.model!r} ({self.spec.fingerprint[:12]}), not with "
                f"{spec.model!r} ({spec.fingerprint[:12]}); use that model, or index the images again"
            )

    def require_images_folder(self, images_folder: Path) -> None:
        """Raise BadInputError unless image paths of the index are relative to this folder."""
        if str(images_folder.resolve()) != self.manifest.images_folder:
            raise BadInputError(
                f"{self._folder} indexes {self.manifest.images_folder}, not {images_folder}; "
                "give that folder, or make an index of its own"
            )

    def search(self, descriptors: Float[Tensor, "queries dimension"], count: int) -> Neighbours:
        """Find the ids of the `count` images nearest to each query descriptor, or of all there are.

        Raises:
            IndexFormatError: if the index holds no images.
        """
        if not len(self):
            raise IndexFormatError(f"index {self._folder} holds no images; add some with `vpr-dhe index`")
        return self._vectors.search(self._comparable(descriptors).cpu().numpy(), count)

    def _comparable(self, descriptors: Float[Tensor, "*queries dimension"]) -> Float32[Tensor, "*queries dimension"]:
        """The boundary of the index: single precision, finite, and of unit norm where the model is searched so."""
        if not torch.isfinite(descriptors).all():
            raise ModelError(
                f"model {self.spec.model!r} gave a descriptor that is not finite; its weights are unusable"
            )
        return normalize(descriptors.float(), dim=-1) if self.spec.unit_norm else descriptors.float()

    def image(self, id: int) -> ImageRecord:
        """What is known of one image."""
        return self._row(id).record

    def frame(self, id: int) -> Frame:
        """Size of one image as decoded and as the extractor saw it."""
        return Frame(self._row(id).image_size, self.spec.input_size)

    def image_path(self, id: int) -> Path:
        """Where the file of one image was when it was indexed."""
        return Path(self.manifest.images_folder) / self.image(id).path

    def descriptors(self, ids: Sequence[int]) -> Float[Tensor, "images dimension"]:
        """The global descriptors of these images."""
        rows = [self._segments[segment].vectors[row] for segment, row in map(self._locate, ids)]
        return torch.from_numpy(np.stack(rows))

    def local_maps(self, ids: Sequence[int]) -> Float[Tensor, "maps cells dimension"]:
        """Read the local maps of these images, in this order.

        Raises:
            IndexDamagedError: if one does not agree with its checksum.
        """
        cells = self.spec.grid.rows * self.spec.grid.columns
        maps = torch.empty(len(ids), cells, self.spec.local_dimension)
        places = [self._locate(id) for id in ids]
        for number in {segment for segment, _ in places}:
            here = [place for place, (segment, _) in enumerate(places) if segment == number]
            maps[here] = self._segments[number].local_maps.read([places[place][1] for place in here])
        return maps

    def _row(self, id: int) -> IndexedImage:
        segment, row = self._locate(id)
        return self._segments[segment].images[row]

    def _locate(self, id: int) -> tuple[int, int]:
        segment = int(np.searchsorted(self._starts, id, side="right")) - 1
        return segment, id - self._starts[segment]


def check(folder: Path) -> CheckReport:
    """Compare every stored file of an index with its checksum, without loading it.

    Raises:
        IndexFormatError, IndexDamagedError: if the manifest itself cannot be used.
    """
    manifest = read_manifest(folder)
    damaged = [name for fact in manifest.segments for name in damaged_files(folder / _SEGMENTS, fact)]
    return CheckReport(
        manifest.count, len(manifest.skipped), len(manifest.segments), tuple(damaged), manifest.spec.model
    )


def _is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, or an index without segments that a failed run left behind."""
    if not folder.is_dir():
        return False
    if {path.name for path in folder.iterdir()} - {FILE_NAME, LOCK_NAME, _SEGMENTS}:
        return False
    return not (folder / FILE_NAME).exists() or not read_manifest(folder).segments
