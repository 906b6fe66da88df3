"""Lists of the images of a folder: text files with one path per line, as written by scripts for published data sets."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.errors import DatasetError
from vpr_dhe.images.listing import scan_images
from vpr_dhe.images.names import KnownNames, text_encoding
from vpr_dhe.runtime.text import counted

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class ImageList:
    """Images of a folder in a list.

    Args:
        source: file of the list.
        folder: folder of the images.
        paths: paths of the listed images relative to the folder, in the order of the list.
        missing: listed images that do not exist.
        left_out: images in the folder that are not listed.
    """

    source: Path
    folder: Path
    paths: tuple[str, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line that counts the listed, missing and unlisted images."""
        lost = f", {len(self.missing)} of them missing, such as {self.missing[0]}" if self.missing else ""
        rest = f"{counted(len(self.left_out), 'other')}, such as {self.left_out[0]}" if self.left_out else "none"
        return f"{self.source} is used: it lists {counted(len(self.paths), 'image')}{lost}, and leaves out {rest}"


def list_beside(folder: Path) -> Path | None:
    """File `<folder>_images_paths.txt`, if there is one."""
    listed = Path(f"{folder.absolute()}_images_paths.txt")
    return listed if listed.is_file() else None


def read_image_list(source: Path, folder: Path) -> ImageList:
    """Read a list of images of a folder, one path per line.

    Paths are relative to the folder, absolute, or begin with the folder's name. Blank lines are ignored; byte order
    marks, Windows line ends and backslashes are accepted.

    Raises:
        DatasetError: if the list cannot be read, is empty, names no image of the folder, or one outside of it.
    """
    lines = _lines(source)
    if not lines:
        raise DatasetError(
            f"{folder}: the split is empty: {source} lists no images; write one path per line, or remove it"
        )
    scanned = scan_images(folder).paths
    found = KnownNames(scanned).match(lines, folder)
    # Images in hidden folders or with unusual extensions are not in the scan.
    paths = tuple(path or _as_written(line, folder, source) for path, line in zip(found, lines, strict=True))
    missing = tuple(
        path for path, known in zip(paths, found, strict=True) if known is None and not (folder / path).is_file()
    )
    if len(missing) == len(paths):
        raise DatasetError(f"{source} lists {paths[0]}, which is not in {folder}; write paths relative to that folder")
    listed = set(paths)
    return ImageList(source, folder, paths, missing, tuple(path for path in scanned if path not in listed))


def _as_written(line: str, folder: Path, source: Path) -> str:
    """Path of a listed file relative to the folder; the line itself if there is no such file."""
    file = next((file for name in (line, line.replace("\\", "/")) if (file := folder / name).is_file()), None)
    if file is None:
        return line
    path = os.path.relpath(file, folder)
    if path.startswith(os.pardir):
        raise DatasetError(f"{source} lists {line}, which is outside of {folder}; list only images of that folder")
    return path


def _lines(source: Path) -> list[str]:
    try:
        content = source.read_bytes()
        text = content.decode(text_encoding(content))
    except OSError as error:
        raise DatasetError(f"list {source} cannot be read ({error.strerror})") from None
    except UnicodeError:
        raise DatasetError(f"{source} is not text in UTF-8; expected one image path per line") from None
    return [name for line in _LINE_END.split(text) if (name := line.strip().strip('"'))]
