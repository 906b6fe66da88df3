"""The manifest: the one file that says what an index holds; what it does not name does not exist."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vpr_dhe.errors import IndexBusyError, IndexDamagedError, IndexFormatError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.segments import FileFact, SegmentFact, sync_folder
from vpr_dhe.records import Grid, Size

FORMAT = "vpr-dhe index 1"
FILE_NAME = "manifest.json"
LOCK_NAME = "writer.lock"


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read while indexing, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What an index holds.

    `images_folder` is the absolute folder that image paths are relative to, and `codec` how local maps are stored.
    """

    spec: ExtractorSpec
    images_folder: str
    codec: str
    segments: tuple[SegmentFact, ...] = ()
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def count(self) -> int:
        """Number of images in all segments."""
        return sum(segment.count for segment in self.segments)

    def with_segment(self, segment: SegmentFact) -> "Manifest":
        """The same manifest with one more segment."""
        return replace(self, segments=(*self.segments, segment))

    def with_skipped(self, skipped: Sequence[SkippedImage]) -> "Manifest":
        """The same manifest with these skipped images; a path that was skipped before is remembered once."""
        remembered = {image.path: image for image in (*self.skipped, *skipped)}
        return replace(self, skipped=tuple(remembered.values()))

    def without_skipped(self, paths: Set[str]) -> "Manifest":
        """The same manifest, these paths no longer skipped: they could be read after all."""
        return replace(self, skipped=tuple(image for image in self.skipped if image.path not in paths))


def publish(manifest: Manifest, folder: Path) -> None:
    """Replace the manifest of an index at once and durably; readers see the old one or the new one."""
    content = asdict(manifest)
    document = {"format": FORMAT, "sha256": _digest(content), "content": content}
    temporary = folder / f"{FILE_NAME}.writing"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)
    sync_folder(folder)


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
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IndexDamagedError(f"{path} cannot be parsed ({error}); index the images again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise IndexFormatError(f"{path} is not of the format {FORMAT!r}; index the images again with this version")
    content: dict[str, Any] = document.get("content", {})
    if _digest(content) != document.get("sha256"):
        raise IndexDamagedError(f"{path} does not agree with its checksum; index the images again")
    try:
        return _from_json(content)
    except (KeyError, TypeError) as error:
        raise IndexFormatError(f"{path} was written by another version ({error}); index the images again") from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _from_json(content: dict[str, Any]) -> Manifest:
    spec = content["spec"]
    return Manifest(
        spec=ExtractorSpec(**(spec | {"grid": Grid(*spec["grid"]), "input_size": Size(*spec["input_size"])})),
        images_folder=content["images_folder"],
        codec=content["codec"],
        segments=tuple(
            SegmentFact(segment["name"], segment["count"], tuple(FileFact(**file) for file in segment["files"]))
            for segment in content["segments"]
        ),
        skipped=tuple(SkippedImage(**image) for image in content["skipped"]),
    )
