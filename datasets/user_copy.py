"""Contents of a user's folder, listed without writing anything or decoding an image."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from cards import Card, Split

from vpr_dhe.images.listing import scan_images

_NAME = re.compile(r"@(-?[\d.]+)@(-?[\d.]+)@(?:(\d*)@([A-Za-z]?)@)?")


@dataclass(frozen=True)
class ImageFile:
    """Image with its path relative to the copy; `size` is None for a dangling link."""

    path: PurePosixPath
    size: int | None

    @property
    def zone(self) -> str | None:
        """UTM zone in the name; empty for a position without a zone, None without a position."""
        match = _NAME.match(self.path.name)
        return None if match is None else f"{match[3] or ''}{match[4] or ''}".lstrip("0")


@dataclass
class UserCopy:
    """User's copy of a data set; `splits` are the splits to check, by default all of the card."""

    card: Card
    root: Path
    wanted: str | None = None
    _images: dict[str, list[ImageFile]] = field(default_factory=dict)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Splits to check."""
        return self.card.split if self.wanted is None else (self.card.split_named(self.wanted),)

    @cached_property
    def present(self) -> tuple[Split, ...]:
        """Splits with at least one existing folder; images may be missing."""
        return tuple(split for split in self.splits if any(self.has(folder) for folder in split.folders))

    def has(self, folder: str) -> bool:
        """Whether there is such a folder."""
        return (self.root / folder).is_dir()

    def images(self, folder: str) -> list[ImageFile]:
        """Images in a folder and below, as listed by the library: without hidden files, following links."""
        if folder not in self._images:
            listing = scan_images(self.root / folder)
            # Folders that cannot be listed are reported as unreadable files; a missing folder is not.
            unreadable = (listing.folder / entry.path for entry in listing.unreadable if entry.path != ".")
            found = [
                *(self._image(listing.folder / path) for path in listing.paths),
                *(ImageFile(self.relative(path), None) for path in unreadable),
            ]
            self._images[folder] = sorted(found, key=lambda image: image.path)
        return self._images[folder]

    @cached_property
    def all_images(self) -> list[ImageFile]:
        """Images of all existing splits, each once."""
        folders = dict.fromkeys(folder for split in self.present for folder in split.folders)
        return list({image.path: image for folder in folders for image in self.images(folder)}.values())

    def relative(self, path: Path) -> PurePosixPath:
        """Path for display."""
        return PurePosixPath(path.relative_to(self.root).as_posix())

    def _image(self, path: Path) -> ImageFile:
        try:
            size = path.stat().st_size
        except OSError:
            size = None
        return ImageFile(self.relative(path), size)


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Visible folders down to a depth, in order of depth."""
    if depth == 0 or not folder.is_dir():
        return
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    yield from below
    for path in below:
        yield from folders_below(path, depth - 1)
