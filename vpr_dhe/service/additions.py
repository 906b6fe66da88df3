"""Images that come over HTTP: into the images folder, then into the index."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from starlette.exceptions import HTTPException

from vpr_dhe.datasets.standard import record_of
from vpr_dhe.features.base import Extractor
from vpr_dhe.images import EXTENSIONS
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import GeoPosition, ImageRecord
from vpr_dhe.runtime.durable_files import sync_folder, write_durably

# What file systems allow is 255 bytes, and a file has a longer name while it is being written.
_LONGEST_PART_BYTES = 200


@dataclass(frozen=True)
class NewImage:
    """An image file and the path that it is to have in the images folder."""

    name: str
    content: bytes
    position: GeoPosition | None = None

    def __post_init__(self) -> None:
        reason = _unfit(self.name)
        if reason:
            raise HTTPException(422, f"image name {self.name!r} {reason}")

    @property
    def record(self) -> ImageRecord:
        """What is known of it: what the caller says wins over its name."""
        record = record_of(self.name)
        return record if self.position is None else replace(record, position=self.position)


@dataclass(frozen=True)
class Additions:
    """What became of some images: their ids by name, and how many of them the index did not hold as they are."""

    ids: dict[str, int]
    added: int


def add_images(index: PlaceIndex, extractor: Extractor, images: Sequence[NewImage]) -> Additions:
    """Store images and index them; all of it is durable when this returns.

    An image that is there already is no obstacle if it is the same. After an error, files may lie in the images folder
    that are not indexed yet.

    Raises:
        HTTPException: 409 if there is another file of the same name; 422 if two images have one name.
        IndexBusyError: if another process is writing to the index.
    """
    folder = Path(index.manifest.images_folder)
    if len({image.name for image in images}) < len(images):
        raise HTTPException(422, "two of the images have the same name; give each its own")
    for image in images:
        _require_free(folder, image)
    for image in images:
        _store(folder, image)
    report = index.add([image.record for image in images], extractor, strict=True)
    ids = {image.name: index.find(image.name) for image in images}
    return Additions({name: id for name, id in ids.items() if id is not None}, report.added + report.replaced)


def _unfit(name: str) -> str | None:
    """Why a name cannot be that of an image in an images folder; None if it can."""
    path = PurePosixPath(name)
    if name != path.as_posix() or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        return "is no plain path; give one relative to the images folder, such as street/0041.jpg"
    if any(part.startswith(".") for part in path.parts):
        return "is that of a hidden file or folder; begin with another letter"
    if path.suffix.lower() not in EXTENSIONS:
        return f"does not end like an image; expected {', '.join(sorted(EXTENSIONS))}"
    if any(len(os.fsencode(part)) > _LONGEST_PART_BYTES for part in path.parts):
        return f"has a part of more than {_LONGEST_PART_BYTES} bytes; shorten it"
    return None


def _require_free(folder: Path, image: NewImage) -> None:
    path = folder / image.name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise HTTPException(422, f"image name {image.name!r} leads out of the images folder")
    blocked = any(parent.exists() and not parent.is_dir() for parent in path.parents)
    if blocked or (path.exists() and not (path.is_file() and path.read_bytes() == image.content)):
        raise HTTPException(409, f"there is another image {image.name!r}; choose another name")


def _store(folder: Path, image: NewImage) -> None:
    path = folder / image.name
    _make_folders(folder, path.parent)
    if path.exists():
        # Perhaps a service was killed between giving it its name and making that durable.
        sync_folder(path.parent)
    else:
        write_durably(path.parent, path.name, image.content)


def _make_folders(root: Path, folder: Path) -> None:
    """Make a folder below `root` whose name is durable."""
    if folder == root or folder.is_dir():
        return
    _make_folders(root, folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
