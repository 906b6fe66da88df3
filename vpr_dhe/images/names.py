"""Matching of image names in lists and tables to the paths of images in a folder.

Lists and tables come from other systems and programs, so a name may have backslashes, a leading "./", the folder of the
images as prefix, an absolute path, or another Unicode form (NFC or NFD) than the file's name.
"""

import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def text_encoding(head: bytes) -> str:
    """Encoding of a text file that begins with these bytes: UTF-16 with its byte order mark, otherwise UTF-8."""
    return "utf-16" if head.startswith(UTF_16_MARKS) else "utf-8-sig"


def tidy_path(name: str) -> str:
    """Normalise a path: with slashes, and without a leading "./"."""
    return posixpath.normpath(name.replace("\\", "/"))


class KnownNames:
    """Paths of images, found by names that may be spelt differently."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._by_spelling: dict[str, list[str]] | None = None

    def find(self, name: str) -> str | None:
        """Find the path with this name: as written, or with slashes, another Unicode form or case if that is unique.

        Returns None if there is none.
        """
        if name in self._paths:
            return name
        tidy = tidy_path(name)
        if tidy in self._paths:
            return tidy
        if self._by_spelling is None:
            self._by_spelling = {}
            for path in self._paths:
                for key in (composed(path), composed(path).casefold()):
                    same = self._by_spelling.setdefault(key, [])
                    if path not in same:
                        same.append(path)
        for key in (composed(tidy), composed(tidy).casefold()):
            if len(found := self._by_spelling.get(key, [])) == 1:
                return found[0]
        return None

    def match(self, names: Sequence[str], folder: Path | None = None) -> list[str | None]:
        """Match each name to a path; None for names of other images.

        If no name is among the paths, all may have the folder of the images as prefix: its absolute path, its name, or,
        if the folder is unknown or was renamed, any folder for which names and paths correspond one to one.

        Args:
            names: names as written.
            folder: folder of the images, if known.
        """
        roots = () if folder is None else (folder.absolute(), folder.resolve())
        found = [self.find(name) or self.find(_inside(name, roots)) for name in names]
        if any(found):
            return found
        for prefix in _prefixes(names, folder):
            cut = [_without(tidy_path(name), prefix) for name in names]
            found = [self.find(name) if name is not None else None for name in cut]
            if any(found) and (_names_folder(prefix, folder) or self._is_one_to_one(found, prefix, folder)):
                return found
        return [None] * len(names)

    def _is_one_to_one(self, found: Sequence[str | None], prefix: str, folder: Path | None) -> bool:
        another = folder is not None and _is_another(prefix, folder)
        return not another and None not in found and len(set(found)) == len(found) == len(self._paths)


def composed(text: str) -> str:
    """Text in Unicode NFC."""
    return unicodedata.normalize("NFC", text)


def _inside(name: str, roots: Sequence[Path]) -> str:
    """Name relative to the folder, given by its absolute paths, if it is a path inside it; otherwise unchanged."""
    for root in roots if name.startswith("/") else ():
        if name.startswith(f"{root}/"):
            return tidy_path(name[len(f"{root}/") :])
    return name


def _prefixes(names: Sequence[str], folder: Path | None) -> list[str]:
    """Candidate prefixes of the names: folders that end with the folder's name, then folders that all names share."""
    tidy = [tidy_path(name) for name in names]
    folders = [name.split("/")[:-1] for name in tidy]
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))]
    of_all = ["/".join(shared[:count]) for count in range(len(shared), 0, -1)]
    if folder is None:
        return of_all
    named: dict[str, None] = {}
    own = _spelling(folder.resolve().name)
    for parts in folders:
        for count in range(1, len(parts) + 1):
            if _spelling(parts[count - 1]) == own:
                named["/".join(parts[:count])] = None
    # Several folders of the same name are ambiguous.
    return [*(named if len(named) == 1 else ()), *of_all]


def _spelling(part: str) -> str:
    """Part of a path without differences of case and Unicode form."""
    return composed(part).casefold()


def _without(name: str, prefix: str) -> str | None:
    return name[len(prefix) + 1 :] if name.startswith(f"{prefix}/") else None


def _names_folder(prefix: str, folder: Path | None) -> bool:
    if folder is None or _spelling(prefix.rpartition("/")[2]) != _spelling(folder.resolve().name):
        return False
    return not _is_another(prefix, folder)


def _is_another(prefix: str, folder: Path) -> bool:
    """Whether a prefix is an existing folder, absolute or next to the images' folder, but not this one."""
    path = folder.absolute().parent / prefix
    try:
        return path.is_dir() and not path.samefile(folder)
    except OSError:
        return False
