"""Folders of the images of an index, and the names that images have in it."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.paths import is_folder
from vpr_dhe.records import ImageRecord, StrPath


@dataclass(frozen=True)
class MergedFolder:
    """Further folder of images; paths of its images in the index begin with `name`."""

    name: str
    folder: str


@dataclass(frozen=True)
class ImageFolders:
    """Mapping between files and the paths that name images in an index.

    A path that begins with the name of a merged folder continues in that folder; all others are relative to `main`.
    """

    main: str
    merged: tuple[MergedFolder, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All folders, the main one first."""
        return (self.main, *(one.folder for one in self.merged))

    @property
    def missing(self) -> tuple[str, ...]:
        """Folders that do not exist, or are on a drive that is not there."""
        return tuple(folder for folder in self.all if not is_folder(folder))

    @cached_property
    def _by_name(self) -> dict[str, str]:
        return {one.name: one.folder for one in self.merged}

    def owner(self, path: str) -> str:
        """Folder that holds an image of the index."""
        return self._by_name.get(path.partition("/")[0], self.main)

    def locate(self, path: str) -> Path:
        """File of an image of the index."""
        first, _, rest = path.partition("/")
        return Path(self._by_name[first]) / rest if first in self._by_name else Path(self.main) / path

    def prefix_of(self, folder: StrPath) -> str | None:
        """Path in the index of a folder or file, empty for the main folder; None if it is in none of the folders.

        Of nested folders the innermost counts. Links to folders are followed.
        """
        given = Path(folder).resolve()
        found = self._innermost(given)
        return None if found is None else _joined(found[0], given.relative_to(found[1]).as_posix())

    def _innermost(self, given: Path) -> tuple[str, Path] | None:
        """Name and place of the innermost of the folders that holds a resolved path."""
        # Today a stored folder may lead through a link.
        roots = [(name, Path(root).resolve()) for name, root in self._roots()]
        around = [(name, root) for name, root in roots if given.is_relative_to(root)]
        return max(around, key=lambda one: len(one[1].parts), default=None)

    def holds(self, folder: StrPath) -> bool:
        """Whether a folder is one of these."""
        given = Path(folder).resolve()
        return any(Path(root).resolve() == given for root in self.all)

    def within(self, folder: StrPath) -> tuple[str, ...]:
        """Those of these folders that are a folder, or lie in it."""
        given = Path(folder).resolve()
        return tuple(root for root in self.all if Path(root).resolve().is_relative_to(given))

    def namer(self, folder: StrPath) -> Callable[[str], str] | None:
        """Function from paths relative to a folder to paths in the index; None if it is in none of the folders.

        The function raises BadInputError for a path that begins with the name of a merged folder by chance.
        """
        given = Path(folder).resolve()
        found, prefix = self._innermost(given), self.prefix_of(folder)
        if found is None or prefix is None:
            return None
        nested = {
            Path(root).resolve().relative_to(given).as_posix(): self.prefix_of(root) or ""
            for root in self.within(folder)
            if Path(root).resolve() != given
        }

        def name(path: str) -> str:
            around = [folder for folder in nested if path.startswith(f"{folder}/")]
            if not around:
                named = _joined(prefix, path)
                if not found[0] and named.partition("/")[0] in self._by_name:
                    raise BadInputError(self._shadowed_text(named))
                return named
            inner = max(around, key=len)
            return _joined(nested[inner], path.removeprefix(f"{inner}/"))

        return name

    def _shadowed_text(self, path: str) -> str:
        first = path.partition("/")[0]
        return (
            f"{self.main} holds {path}, and the index knows {self._by_name[first]} by the name {first}; rename the "
            f"folder {first} in {self.main}"
        )

    def name_of(self, path: StrPath) -> str:
        """Path in the index of a file that is given by it, or by its absolute path; neither needs to exist."""
        given = Path(os.path.normpath(path))
        if not given.is_absolute():
            return given.as_posix()
        return self.name_within(given) or os.path.relpath(given, self.main)

    def name_within(self, path: Path) -> str | None:
        """Path in the index of a file that is given by its absolute path; None if it is in none of the folders.

        The path may lead to a folder through a link, and files and folders below may be links, as `list_images` allows.
        """
        names = {root: name for name, root in self._roots()}
        for place_of in (str, os.path.realpath):  # most paths are given as the folder is
            for parent in path.parents:
                if (name := names.get(place_of(parent))) is not None:
                    return _joined(name, path.relative_to(parent).as_posix())
            names = {os.path.realpath(root): name for root, name in names.items()}
        return None

    def _roots(self) -> list[tuple[str, str]]:
        return [("", self.main), *((one.name, one.folder) for one in self.merged)]

    def with_folder(self, folder: StrPath, taken: Collection[str]) -> "ImageFolders":
        """Copy with one more folder, under its own name or, if a path in the index begins with that, a numbered one."""
        resolved = Path(folder).resolve()
        reserved, number = {*taken, *self._by_name, ""}, 1
        name = stem = resolved.name or "photos"
        while name in reserved:
            number += 1
            name = f"{stem}-{number}"
        return ImageFolders(self.main, (*self.merged, MergedFolder(name, str(resolved))))

    def moved(self, before: str, now: StrPath) -> "ImageFolders":
        """Copy with another place of one of the folders; names stay."""
        place = str(Path(now).resolve())
        merged = tuple(MergedFolder(one.name, place if one.folder == before else one.folder) for one in self.merged)
        return ImageFolders(place if self.main == before else self.main, merged)


def renamed_records(
    folders: ImageFolders, records: Sequence[ImageRecord], folder: StrPath, *, part: bool, index: StrPath
) -> Sequence[ImageRecord]:
    """Records with paths in an index, made from records with paths relative to a folder.

    Args:
        folders: folders of the index.
        records: images of the folder.
        folder: one of the folders of the index or, with `part`, a folder inside one.
        part: accept a folder inside one.
        index: folder of the index, for messages.

    Raises:
        BadInputError: if the folder is another one, or a path begins with the name of a merged folder by chance.
    """
    name = folders.namer(folder)
    if name is None or not (part or folders.holds(folder)):
        raise BadInputError(_other_folder_text(folders, folder, index, inside=name is not None))
    if not folders.merged and not folders.prefix_of(folder):
        return records
    return [replace(record, path=name(record.path)) for record in records]


def _other_folder_text(folders: ImageFolders, folder: StrPath, index: StrPath, *, inside: bool) -> str:
    """Message about a folder that is not one of an index's, and what to do."""
    roots = [str(Path(root).resolve()) for root in folders.all]
    gone = [root for root in roots if not Path(root).exists()]
    if gone and not inside:
        return f"{index} indexes {gone[0]}, which does not exist; if its photos were moved to {folder}, add --moved"
    known = " and ".join(roots)
    give = known if len(roots) == 1 else "one of these"
    hint = "add --add to index a part of it" if inside else "another folder for a new index"
    return f"{index} indexes {known}, and {folder} is another folder; give {give}, or {hint}"


def _joined(prefix: str, path: str) -> str:
    if path == ".":
        return prefix
    return f"{prefix}/{path}" if prefix else path
