"""The manifest: the one file that says what an index holds; what it does not name does not exist."""

import fcntl
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vpr_dhe.errors import IndexBusyError, IndexFormatError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.documents import read_document, write_document
from vpr_dhe.index.files import FileInfo
from vpr_dhe.index.segments import SegmentInfo
from vpr_dhe.index.vectors import VectorFileInfo
from vpr_dhe.records import Grid, Size

FORMAT = "vpr-dhe index 2"
FILE_NAME = "manifest.json"
LOCK_NAME = "writer.lock"
AUTO = "auto"


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read while indexing, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class CodecInfo:
    """How local maps are stored.

    `parameters` is the file of what was fitted, if anything was, on so many `images`; `agreement` is what was measured
    of each codec that `auto` tried.
    """

    name: str
    images: int
    parameters: FileInfo | None = None
    agreement: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CoveringFile:
    """A FAISS file over the vectors of some segments, their rows numbered through in this order: a cache."""

    file: FileInfo
    segments: tuple[str, ...]
    built: VectorFileInfo


@dataclass(frozen=True)
class Settings:
    """What the user asked for: a codec and an index type by name, or `auto`."""

    codec: str = AUTO
    index_type: str = AUTO


@dataclass(frozen=True)
class Manifest:
    """What an index holds.

    `images_folder` is the absolute folder that image paths are relative to. `codec` is None until the first images
    settle it. Segments are in the order of their ids, which are given out once and never again. `removed` is the file
    of the ids that were removed and still lie in a segment.
    """

    spec: ExtractorSpec
    images_folder: str
    settings: Settings
    codec: CodecInfo | None = None
    next_id: int = 0
    segments: tuple[SegmentInfo, ...] = ()
    removed: FileInfo | None = None
    vector_files: tuple[CoveringFile, ...] = ()
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def count(self) -> int:
        """Number of images that are there to be found."""
        return sum(segment.count for segment in self.segments) - self.removed_count

    @property
    def removed_count(self) -> int:
        """Number of images that were removed and still take up room."""
        return self.removed.bytes // 8 if self.removed else 0

    @property
    def state(self) -> tuple[FileInfo, ...]:
        """The files that belong to no segment: the codec's parameters and the removed ids."""
        files = (self.codec.parameters if self.codec else None, self.removed)
        return tuple(file for file in files if file)

    def with_segment(self, segment: SegmentInfo) -> "Manifest":
        """The same manifest with one more segment, in the order of ids."""
        place = bisect([fact.first_id for fact in self.segments], segment.first_id)
        return replace(self, segments=(*self.segments[:place], segment, *self.segments[place:]))

    def without_segments(self, names: Set[str]) -> "Manifest":
        """The same manifest without some segments, and without the files that covered them."""
        return replace(
            self,
            segments=tuple(fact for fact in self.segments if fact.name not in names),
            vector_files=tuple(file for file in self.vector_files if names.isdisjoint(file.segments)),
        )

    def with_rewritten(self, names: Sequence[str], segment: SegmentInfo | None) -> "Manifest":
        """The same manifest with neighbouring segments copied into one, or into none where no row was left."""
        rest = self.without_segments(set(names))
        if segment is None:
            return rest
        if segment.count == sum(fact.count for fact in self.segments if fact.name in names):
            # All rows are there in the same order, so what covered them covers them still.
            covering = [_with_run_replaced(file, tuple(names), segment.name) for file in self.vector_files]
            rest = replace(rest, vector_files=tuple(file for file in covering if file))
        return rest.with_segment(segment)

    def with_skipped(self, skipped: Sequence[SkippedImage], *, readable: Set[str]) -> "Manifest":
        """The same manifest with these skipped images, each path once, but not those that could be read after all."""
        remembered = {image.path: image for image in (*self.skipped, *skipped)}
        return replace(self, skipped=tuple(image for path, image in remembered.items() if path not in readable))


def _with_run_replaced(file: CoveringFile, names: tuple[str, ...], name: str) -> CoveringFile | None:
    """The same file over a new segment in the place of old ones; None where it covered only some of these."""
    shared = [covered for covered in file.segments if covered in names]
    if not shared:
        return file
    if tuple(shared) != names:
        return None
    start = file.segments.index(names[0])
    return replace(file, segments=(*file.segments[:start], name, *file.segments[start + len(names) :]))


def publish(manifest: Manifest, folder: Path) -> None:
    """Replace the manifest of an index at once and durably; readers see the old one or the new one."""
    write_document(folder, FILE_NAME, FORMAT, asdict(manifest))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the only right to write to an index; it ends with the process, however that ends.

    Raises:
        IndexBusyError: if another process is writing.
    """
    with (folder / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IndexBusyError(f"another process is writing to {folder}; wait until it is done") from error
        yield


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        IndexFormatError: if the folder is missing or is no index of this format.
        IndexDamagedError: if the manifest does not agree with its checksum.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        found = "holds no manifest.json" if folder.is_dir() else "does not exist"
        raise IndexFormatError(f"{folder} {found}; expected an index made by `vpr-dhe index IMAGES --out {folder}`")
    content = read_document(path, FORMAT, "index the images into a new folder")
    try:
        return _from_json(content)
    except (KeyError, TypeError) as error:
        raise IndexFormatError(
            f"{path} was written by another version ({error}); index the images into a new folder"
        ) from error


def _from_json(content: dict[str, Any]) -> Manifest:
    spec = content["spec"]
    return Manifest(
        spec=ExtractorSpec(**(spec | {"grid": Grid(*spec["grid"]), "input_size": Size(*spec["input_size"])})),
        images_folder=content["images_folder"],
        settings=Settings(**content["settings"]),
        codec=_codec_from_json(content["codec"]),
        next_id=content["next_id"],
        segments=tuple(_segment_from_json(segment) for segment in content["segments"]),
        removed=_file_from_json(content["removed"]),
        vector_files=tuple(
            CoveringFile(FileInfo(**row["file"]), tuple(row["segments"]), VectorFileInfo(**row["built"]))
            for row in content["vector_files"]
        ),
        skipped=tuple(SkippedImage(**image) for image in content["skipped"]),
    )


def _segment_from_json(row: dict[str, Any]) -> SegmentInfo:
    files = tuple(FileInfo(**file) for file in row["files"])
    return SegmentInfo(row["name"], row["count"], row["first_id"], files)


def _codec_from_json(row: dict[str, Any] | None) -> CodecInfo | None:
    return CodecInfo(row["name"], row["images"], _file_from_json(row["parameters"]), row["agreement"]) if row else None


def _file_from_json(row: dict[str, Any] | None) -> FileInfo | None:
    return FileInfo(**row) if row else None
