"""Listing of the images in a folder and below, importable without torch."""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vpr_dhe.errors import BadInputError, ListingError
from vpr_dhe.images.formats import HEIC_EXTENSIONS, HEIC_HINT, FileKind, has_image_extension, kind_of, reads_heic

_log = logging.getLogger(__name__)

_SHOWN_ENDINGS = 6


@dataclass(frozen=True)
class Unreadable:
    """Folder that cannot be listed, dangling link, or file that cannot be opened, with the reason.

    `path` is relative to the listed folder.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class ImageListing:
    """Images of a folder and below, with skipped files and unreadable folders.

    Args:
        folder: the folder.
        paths: sorted paths of the images, relative to the folder.
        left_out: files that may be images but cannot be read, such as HEIC without the extra; tables and other files
            often stored with images are not counted.
        unreadable: folders and files that could not be listed, and may contain further images.
        unlisted: images of the folder that a list does not name, if these are the images of a list.
    """

    folder: Path
    paths: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    unlisted: frozenset[str] = frozenset()

    def require_complete(self) -> "ImageListing":
        """Return the listing if all images could be listed.

        Raises:
            ListingError: otherwise.
        """
        if self.unreadable:
            raise ListingError(f"{self.unreadable_text}; make it readable, or move it away")
        return self

    @property
    def notes(self) -> list[str]:
        """One line each about what is left out, and what could not be listed."""
        left_out = [f"{self.folder}: {self.left_out_text}"] if self.left_out else []
        return left_out + ([f"{self.unreadable_text}; its images are missing"] if self.unreadable else [])

    def may_hold(self, path: str) -> bool:
        """Whether an unlisted file may still exist: it was left out, or is in an unreadable folder."""
        below = (entry.path for entry in self.unreadable)
        return path in self._left_out or any(path == entry or path.startswith(f"{entry}/") for entry in below)

    @cached_property
    def _left_out(self) -> frozenset[str]:
        return frozenset(self.left_out)

    @property
    def unreadable_text(self) -> str:
        """One line about the folders and files that could not be listed."""
        first = self.unreadable[0]
        others = f", and {len(self.unreadable) - 1} more" if len(self.unreadable) > 1 else ""
        return f"{self.folder / first.path} cannot be listed ({first.reason}){others}"

    @property
    def left_out_text(self) -> str | None:
        """One line that counts the files left out by extension; None if there are none."""
        if not self.left_out:
            return None
        endings = Counter(Path(path).suffix.lower() or "without an ending" for path in self.left_out)
        named = [f"{count} {ending}" for ending, count in endings.most_common(_SHOWN_ENDINGS)]
        rest = len(self.left_out) - sum(count for _, count in endings.most_common(_SHOWN_ENDINGS))
        counts = ", ".join([*named, *([f"{rest} others"] if rest else [])])
        hint = f"; {HEIC_HINT}" if not reads_heic() and not endings.keys().isdisjoint(HEIC_EXTENSIONS) else ""
        return f"left out {counts}, such as {self.left_out[0]}{hint}"


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """List all images in a folder and below, relative to it and sorted.

    An image is a file with an extension of `EXTENSIONS`, or without an extension but with the first bytes of an image.
    Hidden files and folders are skipped; links to folders are followed, but each folder is listed once. Images that
    cannot be read, such as HEIC without the extra `heic`, are counted in a logged warning.

    Raises:
        BadInputError: if the folder is missing, is a file, or contains no images.
        ListingError: if a part of the folder cannot be listed.
    """
    listing = survey_images(folder).require_complete()
    if listing.left_out:
        _log.warning("%s: %s", folder, listing.left_out_text)
    return list(listing.paths)


def survey_images(folder: str | os.PathLike[str]) -> ImageListing:
    """List images as `list_images` does, with the skipped files and the folders that cannot be listed.

    Raises:
        BadInputError: if the folder is missing, is a file, or contains no images.
        ListingError: if no image is found because a part of the folder cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise BadInputError(f"folder {folder} {found}; expected a folder of images")
    listing = scan_images(folder)
    if not listing.paths:
        listing.require_complete()
        hint = (
            f": {listing.left_out_text}" if listing.left_out else "; expected files such as .jpg, .png, .webp or .tif"
        )
        raise BadInputError(f"folder {folder} holds no images that can be read{hint}")
    return listing


def scan_images(folder: Path) -> ImageListing:
    """List the images of a folder and below, without hidden files and folders.

    Links to folders are followed, but each folder is listed once. Files are not opened if their names have an
    extension.
    """
    unreadable: list[Unreadable] = []
    images: list[str] = []
    left_out: list[str] = []

    def refuse(error: OSError) -> None:
        path = Path(os.fsdecode(error.filename or folder))
        unreadable.append(Unreadable(path.relative_to(folder).as_posix(), _reason(path, error)))

    lists = {FileKind.IMAGE: images, FileKind.LEFT_OUT: left_out}
    for parent, names in walk_folders(folder, refuse):
        below = parent.relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if name.startswith("."):
                continue
            if has_image_extension(name):  # without a Path, which would take most of the time
                images.append(prefix + name)
                continue
            try:
                kind = kind_of(parent / name)
            except OSError as error:
                refuse(error)
                continue
            if kind in lists:
                lists[kind].append(prefix + name)
    return ImageListing(
        folder, tuple(sorted(images)), tuple(sorted(left_out)), tuple(sorted(unreadable, key=lambda entry: entry.path))
    )


def _reason(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"a link to {path.readlink()}, which does not exist"
    return error.strerror or type(error).__name__


def walk_folders(folder: Path, refuse: Callable[[OSError], object]) -> Iterator[tuple[Path, list[str]]]:
    """Iterate over a folder and those below that are not hidden, with the names of the files in each.

    Links are followed, but each folder is entered once: by its own path if it has one below `folder`, whatever links to
    it there are. `refuse` is called with the error of each folder that cannot be listed.
    """
    entered: set[tuple[int, int]] = set()
    # Links come last, because the paths of images must not change when somebody links to their folder.
    starts = deque([str(folder)])
    while starts:
        for parent, folders, files in os.walk(starts.popleft(), onerror=refuse):
            try:
                status = Path(parent).stat()
            except OSError as error:
                refuse(error)
                folders.clear()
                continue
            # Links may form a cycle.
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts.extend(path for name in folders if os.path.islink(path := os.path.join(parent, name)))  # noqa: PTH114, PTH118
            yield Path(parent), files
