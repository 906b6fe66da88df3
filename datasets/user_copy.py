"""Contents of a user's folder, listed without writing anything or decoding an image."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from cards import Card, Split

from vpr_dhe.runtime.image_files import scan_images

_NAME = re.compile(r"@(-?[\d.]+)@(-?[\d.]+)@(?:(\d*)@([A-Za-z]?)@)?")


@dataclass(frozen=True)
class ImageFile:
    """An image by its path relative to the copy; `size` is None where a link leads nowhere."""

    path: PurePosixPath
    size: int | None

    @property
    def zone(self) -> str | None:
        """The UTM zone in the name, empty where it has a position without a zone; None without a position."""
        match = _NAME.match(self.path.name)
        return None if match is None else f"{match[3] or ''}{match[4] or ''}".lstrip("0")


@dataclass
class UserCopy:
    """A user's copy of a data set: `splits` are those to look at, all of the card's where none was asked for."""

    card: Card
    root: Path
    wanted: str | None = None
    _images: dict[str, list[ImageFile]] = field(default_factory=dict)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """The splits to look at."""
        return self.card.split if self.wanted is None else (self.card.split_named(self.wanted),)

    @cached_property
    def present(self) -> tuple[Split, ...]:
        """Those of which at least one folder is there; images may still be missing."""
        return tuple(split for split in self.splits if any(self.has(folder) for folder in split.folders))

    def has(self, folder: str) -> bool:
        """Whether there is such a folder."""
        return (self.root / folder).is_dir()

    def images(self, folder: str) -> list[ImageFile]:
        """The images in a folder and below, as the library lists them: without hidden ones, links followed."""
        if folder not in self._images:
            listing = scan_images(self.root / folder)
            # What cannot be listed is reported as files that cannot be read; a missing folder is no such part.
            unreadable = (listing.folder / entry.path for entry in listing.unreadable if entry.path != ".")
            found = [
                *(self._image(listing.folder / path) for path in listing.paths),
                *(ImageFile(self.relative(path), None) for path in unreadable),
            ]
            self._images[folder] = sorted(found, key=lambda image: image.path)
        return self._images[folder]

    @cached_property
    def all_images(self) -> list[ImageFile]:
        """The images of all splits that are there, each once."""
        folders = dict.fromkeys(folder for split in self.present for folder in split.folders)
        return list({image.path: image for folder in folders for image in self.images(folder)}.values())

    def relative(self, path: Path) -> PurePosixPath:
        """A path as it is shown."""
        return PurePosixPath(path.relative_to(self.root).as_posix())

    def _image(self, path: Path) -> ImageFile:
        try:
            size = path.stat().st_size
        except OSError:
            size = None
        return ImageFile(self.relative(path), size)


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Visible folders down to a depth, the upper ones first."""
    if depth == 0 or not folder.is_dir():
        return
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    yield from below
    for path in below:
        yield from folders_below(path, depth - 1)
