"""Immutable state of an index at one moment, for reading."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError, IndexReplacedError
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.index.adaptation.adapted_search import AdaptationFiles
from vpr_dhe.index.codec_files import open_codec
from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.files import PinnedFile, damage
from vpr_dhe.index.ingest import comparable
from vpr_dhe.index.local_maps import RecordPlace, read_map_records
from vpr_dhe.index.manifest import CoveringFile, Manifest, read_manifest
from vpr_dhe.index.rows import Digest, FileStamp, Ids, PathTable, groups_of_equal_content, path_digest, path_digests
from vpr_dhe.index.search import CoveredPart, ExactPart, Part, SearchResult, search_parts
from vpr_dhe.index.segments import IndexedImage, Segment, SegmentInfo
from vpr_dhe.index.stored_maps import StoredMaps
from vpr_dhe.index.tombstones import read_removed
from vpr_dhe.index.vectors import INDEX_TYPES, ApproximateIndex, Queries, RowTerms, gpu_is_present, similarities
from vpr_dhe.index.verifier_cache import CachedImage, VerifierCache
from vpr_dhe.records import Frame, Image, ImageRecord, Near, NearbyImages
from vpr_dhe.runtime.open_files import allow_open_files

# Lookups of paths that take less time in each segment than a table of all images takes to sort.
_FEW_LOOKUPS = 64
# Images, and maps of rows, vectors, local maps and binary codes, each of which keeps a descriptor.
_FILES_PER_SEGMENT = 5

SEGMENTS, VECTOR_FILES, STATE, CALIBRATIONS = "segments", "vectors", "state", "calibrations"


class Snapshot:
    """Images of one manifest, opened for reading.

    Files stay open, so they can be read even if they are compacted away meanwhile.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, before: "Snapshot | None" = None, *, gpu: bool = False
    ) -> None:
        """Open the files of a manifest, reusing those that `before` has opened and checked.

        With `gpu`, FAISS files of types that support it are searched on a GPU, if FAISS finds one.
        """
        self._gpu = gpu or (before is not None and before._gpu)
        self.folder, self.manifest = folder, manifest
        opened = {segment.name: segment for segment in before.segments} if before is not None else {}
        allow_open_files(_FILES_PER_SEGMENT * sum(info.name not in opened for info in manifest.segments))
        pinned = before._vector_files if before is not None else {}
        self.codec = open_codec(folder / STATE, manifest.codec, manifest.spec) if manifest.codec else None
        self.removed = read_removed(folder / STATE, manifest)
        self._adaptation_files = (
            AdaptationFiles(folder / STATE, manifest.spec.dimension) if before is None else before._adaptation_files
        )
        self.adaptation = self._adaptation_files.open(manifest.adaptation)
        self.verifier_cache = VerifierCache(folder) if before is None else before.verifier_cache
        self.segments = [opened.get(info.name) or self._open(info) for info in manifest.segments]
        self._lookups = 0
        self._first_ids = [info.first_id for info in manifest.segments]
        self._vector_files = {
            file.file.name: pinned.get(file.file.name) or PinnedFile(folder / VECTOR_FILES, file.file)
            for file in manifest.vector_files
        }
        loaded = dict(before._approximate) if before is not None else {}
        # Keeps two threads from loading the same large file.
        self._opening = Lock()
        self._approximate = {name: index for name, index in loaded.items() if name in self._vector_files}

    def _open(self, info: SegmentInfo) -> Segment:
        if self.codec is None:
            raise damage(self.folder, "names segments but no codec")
        return Segment(self.folder / SEGMENTS, info, self.manifest.spec, self.codec.record_bytes)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def ids(self) -> Int64[np.ndarray, " images"]:
        """Ids of all images, ascending."""
        stored = [segment.ids for segment in self.segments]
        return np.setdiff1d(np.concatenate(stored), self.removed, assume_unique=True) if stored else np.empty(0, int)

    def search(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        *,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
        adapted: bool = True,
        among: Int64[np.ndarray, " chosen"] | None = None,
    ) -> SearchResult:
        """Find the `count` images nearest to each query descriptor, or all if there are fewer.

        Without `adapted`, vectors are compared as extracted, even if the index is adapted to its map: then its FAISS
        files do not serve, and all vectors are compared. With `among`, only images of these ids are searched; up to
        32,768 of them are compared exactly, whatever the index type. `codes` are the binary codes of the queries, which
        an index of type `binary-codes` is searched by.

        Raises:
            BadInputError: if the index is searched by binary codes, and `codes` is None.
            IndexFormatError: if there are no images.
            IndexDamagedError: if stored vectors do not agree with their checksums.
        """
        if not len(self):
            raise IndexFormatError(f"index {self.folder} holds no images; add some with `vpr-dhe index`")
        return self.nearest(descriptors, min(count, len(self)), codes=codes, adapted=adapted, among=among)

    def nearest(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        *,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
        adapted: bool = True,
        among: Int64[np.ndarray, " chosen"] | None = None,
    ) -> SearchResult:
        """Find the nearest images as `search` does; none if there are no images, as in a shard that lost them all."""
        queries = comparable(descriptors, self.manifest.spec).cpu().numpy()
        bits = None if codes is None else codes.cpu().numpy()
        if self.adaptation is None or not adapted:
            parts = self.parts if self.adaptation is None else self._extracted_parts
            return search_parts(parts, Queries.extracted(queries, bits), count, among)
        prepared = replace(self.adaptation.prepared(queries), codes=bits)
        found = search_parts(self.parts, prepared, count, among)
        return replace(found, extracted=self._extracted_similarities(queries, found.ids))

    def within(self, near: Near) -> tuple[Int64[np.ndarray, " found"], NearbyImages]:
        """Find the ids of the images in a circle, ascending, with the counts of a search among them.

        Raises:
            IndexDamagedError: if an image does not agree with its checksum.
        """
        found = [segment.ids[segment.places.within(near.position, near.within_m)] for segment in self.segments]
        placed = [segment.ids[segment.places.comparable(near.position)] for segment in self.segments]
        inside, comparable = (
            np.setdiff1d(np.concatenate([np.empty(0, np.int64), *ids]), self.removed, assume_unique=True)
            for ids in (found, placed)
        )
        return inside, NearbyImages(near, len(inside), self.manifest.count - len(comparable))

    @property
    def reference_frames(self) -> frozenset[str]:
        """Reference frames of the positions of images, as `geography.distance.reference_frame_of` names them."""
        return frozenset().union(*(segment.places.reference_frames for segment in self.segments))

    @property
    def has_metres(self) -> bool:
        """Whether any image has a position in metres, such as UTM."""
        return any(segment.places.has_metres for segment in self.segments)

    def _extracted_similarities(
        self, queries: Float32[np.ndarray, "queries dimension"], ids: Int64[np.ndarray, "queries found"]
    ) -> Float32[np.ndarray, "queries found"]:
        found = np.empty(ids.shape, np.float32)
        for row, query in enumerate(queries):
            vectors = self.descriptors(ids[row].tolist()).numpy()
            found[row] = similarities(query[None], vectors, unit_norm=self.manifest.spec.unit_norm)[0]
        return found

    @cached_property
    def parts(self) -> list[Part]:
        """Searchable parts with all vectors, opened and checked on first use."""
        by_name = {segment.name: segment for segment in self.segments}
        parts: list[Part] = []
        for file in self.manifest.current_vector_files:
            covered = [by_name.pop(name) for name in file.segments]
            parts.append(
                CoveredPart(
                    self._approximate_index(file),
                    covered,
                    [part.live(self.removed) for part in covered],
                    self._terms_of(covered),
                )
            )
        return parts + [self._exact_part(part, self._terms_of([part])) for part in by_name.values()]

    @cached_property
    def _extracted_parts(self) -> list[Part]:
        """Searchable parts with all vectors as extracted, of an adapted index."""
        return [self._exact_part(segment, None) for segment in self.segments]

    def _exact_part(self, segment: Segment, terms: RowTerms | None) -> ExactPart:
        live, unit_norm = segment.live(self.removed), self.manifest.spec.unit_norm
        return ExactPart(segment, live, terms, unit_norm=unit_norm)

    def _terms_of(self, segments: Sequence[Segment]) -> RowTerms | None:
        if self.adaptation is None:
            return None
        return self.adaptation.terms_of(np.concatenate([segment.ids for segment in segments]))

    def _approximate_index(self, file: CoveringFile) -> ApproximateIndex:
        name = file.file.name
        with self._opening:
            if name not in self._approximate:
                self._approximate[name] = self._open_approximate(file)
            return self._approximate[name]

    def _open_approximate(self, file: CoveringFile) -> ApproximateIndex:
        name = file.file.name
        # FAISS may load a damaged file and answer wrongly.
        if not self._vector_files[name].is_sound():
            raise damage(self.folder / VECTOR_FILES / name, "does not agree with its checksum")
        return ApproximateIndex.open(
            self._vector_files[name].path,
            file.built,
            unit_norm=self.manifest.spec.unit_norm,
            gpu=self._gpu and INDEX_TYPES[file.built.kind].on_gpu and gpu_is_present(),
        )

    def descriptors(self, ids: Ids) -> Float[Tensor, "images dimension"]:
        """Read the global descriptors of images, in this order.

        Raises:
            BadInputError: if one of the ids is unknown.
            IndexDamagedError: if one does not agree with its checksum.
        """
        vectors = np.empty((len(ids), self.manifest.spec.dimension), np.float32)
        for segment, rows, here in self._by_segment(ids):
            vectors[here] = segment.checked_vectors(rows)
        return torch.from_numpy(vectors)

    def codes(self, ids: Ids) -> UInt8[Tensor, "images code_bytes"] | None:
        """Read the binary codes of images, in this order; None if the model makes none. Errors as for `descriptors`."""
        if not self.manifest.spec.code_bits:
            return None
        codes = np.empty((len(ids), self.manifest.spec.code_bits // 8), np.uint8)
        for segment, rows, here in self._by_segment(ids):
            codes[here] = segment.codes[rows]
        return torch.from_numpy(codes)

    def _by_segment(
        self, ids: Ids
    ) -> Iterator[tuple[Segment, Int64[np.ndarray, " _images"], Int64[np.ndarray, " _images"]]]:
        """Find many images at once: each segment with the rows of its images, and their places in `ids`.

        Raises:
            BadInputError: if one of the ids is unknown.
        """
        wanted = np.asarray(ids, np.int64)
        numbers = np.searchsorted(self._first_ids, wanted, side="right") - 1
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            known = np.empty(0, np.int64) if number < 0 else self.segments[number].ids
            rows = _places_in(known, wanted[here])
            unknown = (rows < 0) | (_places_in(self.removed, wanted[here]) >= 0)
            if unknown.any():
                raise self._unknown(int(wanted[here][unknown][0]))
            yield self.segments[number], rows, here

    def local_maps(self, ids: Ids) -> Float[Tensor, "maps cells dimension"]:
        """Read and decode the local maps of images, in this order; errors as for `stored_maps`."""
        return self.stored_maps(ids).decoded

    def stored_maps(self, ids: Ids) -> StoredMaps:
        """Read the encoded local maps of images, in this order.

        Raises:
            BadInputError: if one of the ids is unknown.
            IndexDamagedError: if one does not agree with its checksum.
        """
        located = list(self._by_segment(ids))
        codec = self.require_codec()
        records = np.empty((len(ids), codec.record_bytes), np.uint8)
        places: list[RecordPlace] = []
        for segment, rows, here in located:
            found = zip(rows.tolist(), here.tolist(), strict=True)
            places += [(segment.local_maps, row, records[place]) for row, place in found]
        read_map_records(places)
        return StoredMaps(codec, records)

    def require_codec(self) -> LocalMapCodec:
        """Return the codec, which is chosen with the first images.

        Raises:
            IndexFormatError: if there are no images yet.
        """
        if self.codec is None:
            raise IndexFormatError(f"index {self.folder} holds no images; add some with `vpr-dhe index`")
        return self.codec

    def image(self, id: int) -> ImageRecord:
        """Read the record of an image."""
        return self._indexed(id).record

    def frame(self, id: int) -> Frame:
        """Read the frame of an image: its decoded size and the extractor's input size."""
        return Frame(self._indexed(id).image_size, self.manifest.spec.input_size)

    def decode(self, id: int) -> Image:
        """Decode an image by the grey levels of the index, whatever its size, which was allowed when it was indexed.

        Raises:
            ImageError: if its file cannot be read, with its path.
        """
        return decode_named(self.image_path(id), self.manifest.levels, max_pixels=None)

    def image_path(self, id: int) -> Path:
        """Absolute path of an image when it was indexed."""
        return self.manifest.folders.locate(self.image(id).path)

    def stamp(self, id: int) -> FileStamp:
        """Read the file stamp of an image."""
        segment, row = self.locate(id)
        return FileStamp.of(segment.rows[row])

    def cache_of(self, id: int) -> CachedImage:
        """Cache of what verifiers extract from an image."""
        return CachedImage(self.verifier_cache, self.stamp(id), self.image_path(id))

    def content_digests(self) -> list[Digest]:
        """Digests of the files of all images."""
        rows = [segment.rows[segment.live(self.removed)] for segment in self.segments]
        return [Digest(*pair) for part in rows for pair in part[["content_high", "content_low"]].tolist()]

    def find(self, path: str) -> int | None:
        """Look up the id of the image at a path relative to the images folder; None if there is none."""
        digest = path_digest(path)
        for table in self._path_tables():
            for id in table.ids_of(digest):
                if not _contains(self.removed, id):
                    return id
        return None

    def find_all(self, paths: Iterable[str]) -> Int64[np.ndarray, " _paths"]:
        """Look up the ids of the images at many paths, as `find` does; -1 where there is none."""
        paths = list(paths)
        if len(paths) <= _FEW_LOOKUPS:
            found = [self.find(path) for path in paths]
            return np.array([-1 if id is None else id for id in found], np.int64)
        return self._live_paths.first_ids_of(path_digests(paths))

    def file_stats(self, ids: Ids) -> list[tuple[int, int]]:
        """Size and modification time in nanoseconds of image files when they were indexed; errors as for `locate`."""
        stats = np.empty((len(ids), 2), np.int64)
        for segment, rows, here in self._by_segment(ids):
            stats[here, 0], stats[here, 1] = segment.rows["file_bytes"][rows], segment.rows["modified_ns"][rows]
        return list(zip(*stats.T.tolist(), strict=True))

    def _path_tables(self) -> Iterable[PathTable]:
        """Tables to look up a path in: those of the segments, or for many lookups one of all images."""
        self._lookups += 1
        if self._lookups <= _FEW_LOOKUPS:
            return (segment.paths for segment in self.segments)
        return [self._paths]

    @cached_property
    def _paths(self) -> PathTable:
        return PathTable([segment.rows for segment in self.segments])

    @cached_property
    def _live_paths(self) -> PathTable:
        return PathTable([segment.rows[segment.live(self.removed)] for segment in self.segments])

    def duplicates(self) -> list[tuple[int, ...]]:
        """Groups of ids of images with the same file content."""
        return groups_of_equal_content([segment.rows for segment in self.segments], self.removed)

    def locate(self, id: int) -> tuple[Segment, int]:
        """Find the segment and row of an image.

        Raises:
            BadInputError: if the id is unknown.
        """
        number = bisect(self._first_ids, id) - 1
        if number >= 0 and not _contains(self.removed, id):
            ids = self.segments[number].ids
            row = int(np.searchsorted(ids, id))
            if row < len(ids) and ids[row] == id:
                return self.segments[number], row
        raise self._unknown(id)

    def _unknown(self, id: int) -> BadInputError:
        return BadInputError(f"index {self.folder} holds no image of id {id}: it was removed, or never added")

    def _indexed(self, id: int) -> IndexedImage:
        segment, row = self.locate(id)
        return segment.image(row)


def _contains(ascending: Int64[np.ndarray, " ids"], id: int) -> bool:
    place = int(np.searchsorted(ascending, id))
    return place < len(ascending) and bool(ascending[place] == id)


def _places_in(ascending: Int64[np.ndarray, " known"], ids: Int64[np.ndarray, " ids"]) -> Int64[np.ndarray, " ids"]:
    """Places of ids among known ones; -1 for unknown ids."""
    places = np.searchsorted(ascending, ids)
    found = places < len(ascending)
    found[found] = ascending[places[found]] == ids[found]
    return np.where(found, places, -1)


def make_folders(folder: Path) -> None:
    """Make the folders of an index, which tools that copy it may have left out if empty."""
    for part in (SEGMENTS, VECTOR_FILES, STATE):
        (folder / part).mkdir(exist_ok=True)


def open_newest(folder: Path, before: Snapshot | None = None, *, gpu: bool = False) -> Snapshot:
    """Open the current state of an index; returns `before` if nothing has changed.

    Raises:
        IndexFormatError: if the folder is not an index of this format.
        IndexReplacedError: if the folder holds an index of another model than `before` now.
        IndexDamagedError: if stored data does not agree with its checksum.
    """
    while True:
        manifest = read_manifest(folder)
        if before is not None and manifest == before.manifest:
            return before
        if before is not None and manifest.spec.fingerprint != before.manifest.spec.fingerprint:
            raise IndexReplacedError(
                f"{folder} was replaced by an index of model {manifest.spec.model!r}, and was opened with "
                f"{before.manifest.spec.model!r}; open it again"
            )
        try:
            return Snapshot(folder, manifest, before, gpu=gpu)
        except (IndexDamagedError, FileNotFoundError) as error:
            # Another process may have replaced and deleted files of this manifest meanwhile.
            if read_manifest(folder) != manifest:
                continue
            if isinstance(error, FileNotFoundError):
                raise damage(Path(str(error.filename)), "is missing") from error
            raise
