"""Immutable segments: written under a temporary name, sealed by rename, described by sizes and checksums.

A segment is a folder of four files: `vectors.f32` (count x dimension, little-endian), `local_maps.f16` (records of
one size, see local_maps.py), `local_maps.crc32` (one little-endian uint32 per record) and `images.jsonl` (one object
per image). Rows mean the same image in all four.
"""

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from vpr_dhe.errors import IndexDamagedError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.local_maps import LocalMapFile, encode
from vpr_dhe.records import Features, GeoPosition, ImageRecord, MetricPosition, Position, Size

VECTORS, LOCAL_MAPS, CHECKSUMS, IMAGES = "vectors.f32", "local_maps.f16", "local_maps.crc32", "images.jsonl"
_TEMPORARY_SUFFIX = ".writing"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class FileFact:
    """Size and SHA-256 of one sealed file."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SegmentFact:
    """What the manifest says of one segment."""

    name: str
    count: int
    files: tuple[FileFact, ...]


@dataclass(frozen=True)
class FileStamp:
    """By what an unchanged image file is recognised without reading it."""

    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class IndexedImage:
    """One row of a segment: where the image is, what is known of it, and the size it was decoded to."""

    record: ImageRecord
    image_size: Size
    stamp: FileStamp


class SegmentWriter:
    """Writes one segment row by row; of features nothing stays in memory.

    A row counts once all of it is written, so an interruption between its parts leaves no trace.
    """

    def __init__(self, folder: Path, number: int) -> None:
        # A name that was never used: what an interrupted run left behind may not be touched, nor taken for ours.
        self._final = folder / f"{number:06d}-{secrets.token_hex(4)}"
        self._temporary = self._final.with_suffix(_TEMPORARY_SUFFIX)
        self._temporary.mkdir(parents=True)
        names = (VECTORS, LOCAL_MAPS, CHECKSUMS, IMAGES)
        self._files = {name: (self._temporary / name).open("wb") for name in names}
        self._digests = {name: hashlib.sha256() for name in names}
        self._paths: list[str] = []
        self._whole = (0, self._state())

    @property
    def count(self) -> int:
        """Number of whole rows."""
        return self._whole[0]

    @property
    def paths(self) -> frozenset[str]:
        """Paths of the images in whole rows."""
        return frozenset(self._paths[: self.count])

    def append(self, image: IndexedImage, features: Features) -> None:
        """Add one row."""
        local_map = encode(features.local_map)
        self._write(VECTORS, features.global_descriptor.cpu().numpy().astype("<f4").tobytes())
        self._write(LOCAL_MAPS, local_map)
        self._write(CHECKSUMS, zlib.crc32(local_map).to_bytes(4, "little"))
        self._write(IMAGES, (json.dumps(asdict(image)) + "\n").encode())
        self._paths.append(image.record.path)
        # One assignment, which an interruption comes before or after.
        self._whole = (len(self._paths), self._state())

    def _write(self, name: str, data: bytes) -> None:
        self._files[name].write(data)
        self._digests[name].update(data)

    def _state(self) -> tuple[FileFact, ...]:
        """Size and digest of each file as they are now."""
        return tuple(FileFact(name, file.tell(), self._digests[name].hexdigest()) for name, file in self._files.items())

    def seal(self) -> SegmentFact:
        """Make the whole rows durable under the final name; they count once a manifest names the segment."""
        count, facts = self._whole
        for fact in facts:
            file = self._files[fact.name]
            file.truncate(fact.bytes)
            os.fsync(file.fileno())
            file.close()
        sync_folder(self._temporary)
        self._temporary.rename(self._final)
        sync_folder(self._final.parent)
        return SegmentFact(self._final.name, count, facts)

    def discard(self) -> None:
        """Drop everything that was written."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)


class Segment:
    """A sealed segment, opened for reading; all but the local maps is checked and loaded at once."""

    def __init__(self, folder: Path, fact: SegmentFact, spec: ExtractorSpec) -> None:
        self._folder, self._fact, self._spec = folder / fact.name, fact, spec
        content = {file.name: self._checked(file) for file in fact.files if file.name != LOCAL_MAPS}
        self._require_size(next(file for file in fact.files if file.name == LOCAL_MAPS))
        self.vectors: Float32[np.ndarray, "count dimension"] = np.frombuffer(content[VECTORS], "<f4").reshape(
            fact.count, spec.dimension
        )
        self.images = tuple(_image_from_json(json.loads(line)) for line in content[IMAGES].splitlines())
        cells = spec.grid.rows * spec.grid.columns
        self.local_maps = LocalMapFile(
            self._folder / LOCAL_MAPS, cells, spec.local_dimension, np.frombuffer(content[CHECKSUMS], "<u4")
        )

    def _require_size(self, file: FileFact) -> None:
        """Local maps are checked one by one as they are read; a missing or shortened file shows at once."""
        path = self._folder / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise IndexDamagedError(_damage(path, "is missing or not of its size, and fails its checksum"))

    def _checked(self, file: FileFact) -> bytes:
        path = self._folder / file.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise IndexDamagedError(_damage(path, f"cannot be read ({error.strerror})")) from error
        if len(content) != file.bytes or hashlib.sha256(content).hexdigest() != file.sha256:
            raise IndexDamagedError(_damage(path, "does not agree with its checksum"))
        return content


def damaged_files(folder: Path, fact: SegmentFact) -> Iterator[str]:
    """Compare every file of a segment, local maps included, with its size and checksum; name those that differ."""
    for file in fact.files:
        path = folder / fact.name / file.name
        if not path.is_file() or path.stat().st_size != file.bytes or _sha256(path) != file.sha256:
            yield f"{fact.name}/{file.name}"


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _damage(path: Path, what: str) -> str:
    return f"{path} {what}; run `vpr-dhe check` on the index, then index these images again"


def _image_from_json(row: dict[str, Any]) -> IndexedImage:
    record = row["record"]
    return IndexedImage(
        ImageRecord(record["path"], _position_from_json(record["position"]), record["heading_deg"]),
        Size(*row["image_size"]),
        FileStamp(**row["stamp"]),
    )


def _position_from_json(row: dict[str, Any] | None) -> Position | None:
    if row is None:
        return None
    return GeoPosition(**row) if "latitude_deg" in row else MetricPosition(**row)
