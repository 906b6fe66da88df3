"""Immutable segments: written under a temporary name, sealed by a rename, checked by sizes and checksums.

A segment is a folder of four files with the same rows: `rows.bin`, a table with one record per image (rows.py);
`vectors.f32`, global descriptors (count x dimension, little-endian); `local_maps.bin`, encoded local maps (records of
one size); and `images.jsonl`, one object per image. A fifth, `codes.bin`, holds binary codes (count x bytes) if the
model makes some.
"""

import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geography.neighbours import PositionSearch
from vpr_dhe.index.files import FileInfo, damage, file_named, require_size, unique_name
from vpr_dhe.index.local_maps import LocalMapFile
from vpr_dhe.index.rows import ROW, FileStamp, Ids, PathTable, check_of, path_digest
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition, Position, Size
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX, seal_folder

ROWS, VECTORS, LOCAL_MAPS, IMAGES = "rows.bin", "vectors.f32", "local_maps.bin", "images.jsonl"
CODES = "codes.bin"
_FILES = (ROWS, VECTORS, LOCAL_MAPS, IMAGES)


@dataclass(frozen=True)
class SegmentInfo:
    """Entry of a segment in the manifest; its ids ascend from `first_id`."""

    name: str
    count: int
    first_id: int
    files: tuple[FileInfo, ...]


@dataclass(frozen=True)
class IndexedImage:
    """Record of an image, and its decoded size."""

    record: ImageRecord
    image_size: Size


@dataclass(frozen=True)
class StoredImage:
    """One row of a segment; `code` is empty if the model makes no binary codes."""

    id: int
    image: IndexedImage
    stamp: FileStamp
    vector: Float32[np.ndarray, " dimension"]
    local_map: bytes
    code: bytes = b""


def image_line(image: IndexedImage) -> bytes:
    """Line of an image in `images.jsonl`."""
    return (json.dumps(asdict(image)) + "\n").encode()


def make_segment_folder(folder: Path, first_id: int) -> tuple[Path, Path]:
    """Make the folder of a new segment under a temporary name; returns its path and the final one, both unique."""
    final = folder / unique_name(f"{first_id:09d}")
    temporary = final.with_name(final.name + TEMPORARY_SUFFIX)
    temporary.mkdir(parents=True)
    return temporary, final


class SegmentWriter:
    """Writer of one segment, row by row.

    A row counts once all of it is written, so interruptions leave no partial rows. All rows have binary codes, or none.
    """

    def __init__(self, folder: Path, first_id: int) -> None:
        self._temporary, self._final = make_segment_folder(folder, first_id)
        self._files: dict[str, BinaryIO] = {}
        self._digests = {name: hashlib.sha256() for name in (*_FILES, CODES)}
        for name in _FILES:
            self._open(name)
        self._first_id = first_id
        self._whole = (0, self._state())

    def _open(self, name: str) -> None:
        self._files[name] = (self._temporary / name).open("wb")

    @property
    def count(self) -> int:
        """Number of complete rows."""
        return self._whole[0]

    def append(self, stored: StoredImage) -> None:
        """Add one row; ids must ascend."""
        count, files = self._whole
        if stored.code and CODES not in self._files:
            self._open(CODES)
        image = image_line(stored.image)
        vector = stored.vector.astype("<f4")
        row = np.array(
            (
                stored.id,
                *path_digest(stored.image.record.path),
                *stored.stamp.content,
                stored.stamp.bytes,
                stored.stamp.modified_ns,
                file_named(files, IMAGES).bytes,
                len(image),
                check_of(image),
                check_of(stored.local_map),
                check_of(vector.data),
            ),
            ROW,
        )
        self._write(ROWS, row.tobytes())
        self._write(VECTORS, vector.tobytes())
        self._write(LOCAL_MAPS, stored.local_map)
        self._write(IMAGES, image)
        if stored.code:
            self._write(CODES, stored.code)
        # A single assignment, so that an interruption comes before or after it.
        self._whole = (count + 1, self._state())

    def _write(self, name: str, data: bytes) -> None:
        self._files[name].write(data)
        self._digests[name].update(data)

    def _state(self) -> tuple[FileInfo, ...]:
        """Current size and checksum of each file."""
        return tuple(FileInfo(name, file.tell(), self._digests[name].hexdigest()) for name, file in self._files.items())

    def seal(self) -> SegmentInfo | None:
        """Make the complete rows durable under the final name; returns None, and leaves nothing, if there are none."""
        count, files = self._whole
        if not count:
            self.discard()
            return None
        for info in files:
            file = self._files[info.name]
            file.truncate(info.bytes)
            os.fsync(file.fileno())
            file.close()
        seal_folder(self._temporary, self._final)
        return SegmentInfo(self._final.name, count, self._first_id, files)

    def discard(self) -> None:
        """Delete everything that was written."""
        for file in self._files.values():
            with suppress(OSError):  # closing flushes, and the disk may be full
                file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)


class Segment:
    """A sealed segment, opened for reading.

    Checksums are checked: of the table of rows on opening, of images and local maps as they are read. Vectors are
    mapped; `require_sound_vectors` checks all of them, `checked_vectors` some. Codes are mapped and checked together.
    Open files stay readable after a compaction deletes their names.
    """

    def __init__(self, folder: Path, info: SegmentInfo, spec: ExtractorSpec, record_bytes: int) -> None:
        self._folder, self.info = folder / info.name, info
        paths = {file.name: require_size(self._folder, file) for file in info.files}
        # Plain arrays, because indexing a memmap costs microseconds per row.
        self.rows = np.asarray(np.memmap(paths[ROWS], ROW, "r"))
        self._require_checksum(ROWS, self.rows)
        self.ids: Int64[np.ndarray, " count"] = np.ascontiguousarray(self.rows["id"])
        self.vectors: Float32[np.ndarray, "count dimension"] = np.asarray(
            np.memmap(paths[VECTORS], "<f4", "r", shape=(info.count, spec.dimension))
        )
        self._vectors_are_sound = False
        self._mapped_codes = self._map_codes(paths, spec.code_bits // 8)
        self.local_maps = LocalMapFile(paths[LOCAL_MAPS], record_bytes, self.rows["map_check"])
        self._images = os.open(paths[IMAGES], os.O_RDONLY)
        weakref.finalize(self, os.close, self._images)

    @property
    def name(self) -> str:
        """Name of the folder, unique for all time."""
        return self.info.name

    def _map_codes(self, paths: Mapping[str, Path], code_bytes: int) -> UInt8[np.ndarray, "count code_bytes"]:
        if not code_bytes:
            return np.empty((self.info.count, 0), np.uint8)
        expected = self.info.count * code_bytes
        if CODES not in paths or file_named(self.info.files, CODES).bytes != expected:
            raise damage(self._folder / CODES, f"does not hold {expected} bytes of binary codes")
        return np.asarray(np.memmap(paths[CODES], np.uint8, "r", shape=(self.info.count, code_bytes)))

    @cached_property
    def codes(self) -> UInt8[np.ndarray, "count code_bytes"]:
        """Binary codes, checked on first use; of no bytes if the model makes none.

        Raises:
            IndexDamagedError: if they do not agree with their checksum.
        """
        if self._mapped_codes.size:
            self._require_checksum(CODES, self._mapped_codes)
        return self._mapped_codes

    def _require_checksum(self, name: str, content: np.ndarray) -> None:
        if hashlib.sha256(content.data).hexdigest() != file_named(self.info.files, name).sha256:
            raise damage(self._folder / name, "does not agree with its checksum")

    def require_sound_vectors(self) -> None:
        """Check all vectors against their checksum, once.

        Raises:
            IndexDamagedError: if they do not agree with their checksum.
        """
        if not self._vectors_are_sound:
            self._require_checksum(VECTORS, self.vectors)
            self._vectors_are_sound = True

    def checked_vectors(self, rows: Ids) -> Float32[np.ndarray, "_rows dimension"]:
        """Copy the vectors of some rows, and check them.

        Raises:
            IndexDamagedError: if one does not agree with its checksum.
        """
        vectors = np.ascontiguousarray(self.vectors[rows])
        expected = self.rows["vector_check"][rows].tolist()
        # Without a loop in Python, because each search reads a hundred or more.
        found = list(map(check_of, map(memoryview, vectors)))
        if found != expected:
            row = next(row for row, is_, must in zip(rows, found, expected, strict=True) if is_ != must)
            raise damage(self._folder / VECTORS, f"does not agree with its checksum in row {row}")
        return vectors

    @cached_property
    def paths(self) -> PathTable:
        """Lookup of images by path, made on first use; later states of the index keep it."""
        return PathTable([self.rows])

    @cached_property
    def places(self) -> PositionSearch:
        """Positions of all rows, read on first use.

        Raises:
            IndexDamagedError: if an image does not agree with its checksum.
        """
        return PositionSearch([self.image(row).record.position for row in range(self.info.count)])

    def image(self, row: int) -> IndexedImage:
        """Read one image; errors as for `image_line`."""
        return _image_from_json(json.loads(self.image_line(row)))

    def image_line(self, row: int) -> bytes:
        """Read the line of one image.

        Raises:
            IndexDamagedError: if it does not agree with its checksum.
        """
        entry = self.rows[row]
        content = os.pread(self._images, int(entry["image_bytes"]), int(entry["image_offset"]))
        if check_of(content) != entry["image_check"]:
            raise damage(self._folder / IMAGES, f"does not agree with its checksum in row {row}")
        return content

    def stored(self, row: int) -> StoredImage:
        """Read one row.

        Raises:
            IndexDamagedError: if it does not agree with its checksums.
        """
        record: UInt8[np.ndarray, " record_bytes"] = np.empty(self.local_maps.record_bytes, np.uint8)
        self.local_maps.read_into(row, record)
        vector = self.checked_vectors([row])[0]
        entry = self.rows[row]
        stamp = FileStamp.of(entry)
        code = self.codes[row].tobytes()
        return StoredImage(int(entry["id"]), self.image(row), stamp, vector, record.tobytes(), code)

    def live(self, dead: Int64[np.ndarray, " removed"]) -> Bool[np.ndarray, " count"]:
        """Mask of rows that were not removed."""
        return ~np.isin(self.ids, dead)


def collect_garbage(folder: Path, named: Iterable[str]) -> None:
    """Delete entries of a folder that are not named: leftovers of interrupted runs and compacted segments."""
    keep = set(named)
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _image_from_json(row: dict[str, Any]) -> IndexedImage:
    record = row["record"] | {"position": _position_from_json(row["record"]["position"])}
    return IndexedImage(ImageRecord(**record), Size(*row["image_size"]))


def _position_from_json(row: dict[str, Any] | None) -> Position | None:
    if row is None:
        return None
    return GeoPosition(**row) if "latitude_deg" in row else MetricPosition(**row)
