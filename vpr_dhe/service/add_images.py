"""Images uploaded over HTTP: stored in the images folder, then indexed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from starlette.exceptions import HTTPException

from vpr_dhe.datasets.standard import record_of
from vpr_dhe.features.base import Extractor
from vpr_dhe.images.formats import HEIC_EXTENSIONS, SIGNATURE_BYTES, image_extensions, is_heic
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.panorama_views import with_views
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import GeoPosition, ImageRecord
from vpr_dhe.runtime.durable_files import sync_folder, write_durably

# File systems allow 255 bytes; the name is longer while the file is being written.
_MAX_PART_BYTES = 200


@dataclass(frozen=True)
class NewImage:
    """An image file and its path in the index.

    Raises:
        HTTPException: 422 if the name cannot be such a path.
    """

    name: str
    content: bytes
    position: GeoPosition | None = None

    def __post_init__(self) -> None:
        reason = _invalid_name(self.name, self.content)
        if reason:
            raise HTTPException(422, f"image name {self.name!r} {reason}")

    @property
    def record(self) -> ImageRecord:
        """Record of the image; a given position takes precedence over one in the name."""
        record = record_of(self.name)
        return record if self.position is None else replace(record, position=self.position)


@dataclass(frozen=True)
class Additions:
    """Result of an upload: ids by path in the index, and the number of images or views that are new or changed."""

    ids: dict[str, int]
    added: int


def add_images(index: PlaceIndex, extractor: Extractor, images: Sequence[NewImage]) -> Additions:
    """Store and index images; they are durable on return.

    An identical image that is already indexed is accepted. After an error, stored files may remain unindexed.

    Raises:
        HTTPException: 409 if another file has the same name; 422 if two images have one name.
        IndexBusyError: if another process is writing to the index.
    """
    folders = index.manifest.folders
    if len({image.name for image in images}) < len(images):
        raise HTTPException(422, "two of the images have the same name; give each a unique one")
    for image in images:
        _require_free(folders, image)
    for image in images:
        _store(folders, image)
    records = [record for image in images for record in _records(index, image)]
    report = index.add(records, extractor, strict=True)
    ids = {record.path: index.find(record.path) for record in records}
    return Additions({name: id for name, id in ids.items() if id is not None}, report.added + report.replaced)


def _records(index: PlaceIndex, image: NewImage) -> Sequence[ImageRecord]:
    """Record of an image or, if the index has panoramas in views, those of its views."""
    views = index.manifest.panorama_views
    return with_views([image.record], index.manifest.folders.locate, views)[0] if views else [image.record]


def _invalid_name(name: str, content: bytes) -> str | None:
    """Reason why a name cannot be a path in an images folder; None if it can."""
    path = PurePosixPath(name)
    if name != path.as_posix() or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        return "is not a normalised relative path; give one in the images folder, such as street/0041.jpg"
    if any(part.startswith(".") for part in path.parts):
        return "is that of a hidden file or folder; begin with another character than a dot"
    ending, extensions = path.suffix.lower(), image_extensions()
    # HEIC and similar extensions are accepted, because phones keep the original name of images converted to JPEG.
    if ending not in extensions and not (ending in HEIC_EXTENSIONS and not is_heic(content[:SIGNATURE_BYTES])):
        return f"has no extension of an image; expected one of {', '.join(sorted(extensions))}"
    if any(len(os.fsencode(part)) > _MAX_PART_BYTES for part in path.parts):
        return f"has a part of more than {_MAX_PART_BYTES} bytes; shorten it"
    return None


def _require_free(folders: ImageFolders, image: NewImage) -> None:
    folder, path = Path(folders.owner(image.name)), folders.locate(image.name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise HTTPException(422, f"image name {image.name!r} leads out of the images folder")
    blocked = any(parent.exists() and not parent.is_dir() for parent in path.parents)
    if blocked or (path.exists() and not (path.is_file() and path.read_bytes() == image.content)):
        raise HTTPException(409, f"another image has the name {image.name!r}; choose another one")


def _store(folders: ImageFolders, image: NewImage) -> None:
    folder, path = Path(folders.owner(image.name)), folders.locate(image.name)
    _make_folders(folder, path.parent)
    if path.exists():
        # A service may have been killed after naming the file but before syncing the folder.
        sync_folder(path.parent)
    else:
        write_durably(path.parent, path.name, image.content)


def _make_folders(root: Path, folder: Path) -> None:
    """Make a folder below `root` and sync its parents."""
    if folder == root or folder.is_dir():
        return
    _make_folders(root, folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
