"""Listing of image files in folders, by extension or, without one, by their first bytes."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache, cached_property
from pathlib import Path

from vpr_dhe.errors import ListingError
from vpr_dhe.runtime.extras import is_installed

# fmt: off
EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".png",
    ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tga", ".icb", ".vda", ".vst", ".qoi", ".psd", ".dds", ".ftc", ".ftu", ".blp", ".pcx", ".dcx", ".sgi", ".bw",
    ".rgb", ".rgba", ".ras", ".im", ".msp", ".xbm", ".xpm", ".pxr", ".gbr", ".fli", ".flc", ".ico", ".cur", ".icns",
})
"""Extensions of the formats that Pillow decodes; without .pcd, which mostly stands for point clouds."""
# fmt: on

HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
"""Extensions of HEIC images, such as those of iPhones, which the extra `heic` decodes."""

# Tables, notes and metadata often stored with images, and files of file managers.
# fmt: off
_COMPANIONS = frozenset({
    ".csv", ".tsv", ".txt", ".md", ".rst", ".pdf", ".json", ".jsonl", ".geojson", ".xml", ".xmp", ".aae", ".thm",
    ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".html", ".htm", ".gpx", ".kml", ".nmea", ".db", ".sqlite",
    ".h5", ".hdf5", ".npy", ".npz", ".pt", ".pkl", ".bin", ".py", ".sh", ".m", ".mat", ".pcd", ".ply", ".lock", ".tmp",
    ".part",
})
# fmt: on
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"8BPS",  # Photoshop
    b"DDS ",
    b"qoif",
    *(b"P%d%c" % (number, blank) for number in range(1, 7) for blank in b"\n \r\t"),  # netpbm
)
SIGNATURE_BYTES = 64
"""Magic bytes of image formats."""
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
_SHOWN_ENDINGS = 6

HEIC_HINT = 'to read HEIC, install pillow-heif with: pip install "vpr-dhe[heic]"'


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
    """

    folder: Path
    paths: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

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


@cache
def reads_heic() -> bool:
    """Whether the extra `heic` is installed."""
    return is_installed("pillow_heif")


def image_extensions() -> frozenset[str]:
    """Extensions of images that the installed packages can read."""
    return EXTENSIONS | HEIC_EXTENSIONS if reads_heic() else EXTENSIONS


def is_heic(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a HEIC photo."""
    brands = _brands(head)
    return not brands.isdisjoint(_HEIC_BRANDS) and brands.isdisjoint(_AVIF_BRANDS)


def _brands(head: bytes) -> set[bytes]:
    """Brands in the box `ftyp` (ISO/IEC 14496-12, section 4.3); empty for other files."""
    box = head[: int.from_bytes(head[:4], "big")]
    return {box[8:12], *(box[start : start + 4] for start in range(16, len(box), 4))} if head[4:8] == b"ftyp" else set()


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

    lists = {_Kind.IMAGE: images, _Kind.LEFT_OUT: left_out}
    for parent, names in walk_folders(folder, refuse):
        below = parent.relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if name.startswith("."):
                continue
            if _has_image_extension(name):  # without a Path, which would take most of the time
                images.append(prefix + name)
                continue
            try:
                kind = _kind(parent / name)
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

    Links are followed, but each folder is entered once. `refuse` is called with the error of each folder that cannot be
    listed.
    """
    entered: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
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
        yield Path(parent), files


def _has_image_extension(name: str) -> bool:
    """Whether a file name has the extension of an image, with the rules of `Path.suffix`."""
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in EXTENSIONS


class _Kind(Enum):
    IMAGE = auto()
    LEFT_OUT = auto()
    OTHER = auto()


def _kind(path: Path) -> _Kind:
    """Kind of a file by its extension or, without one, by its first bytes.

    Raises:
        OSError: if it is a dangling link or cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix in EXTENSIONS:
        return _Kind.IMAGE
    if suffix in _COMPANIONS or path.name.lower() in _LITTER:
        return _Kind.OTHER
    if path.is_symlink():
        path.stat()  # raises for a dangling link, such as to a drive that is not mounted
    if suffix in HEIC_EXTENSIONS:
        return _Kind.IMAGE if reads_heic() else _Kind.LEFT_OUT
    # Dots in dates and numbers do not start an extension.
    if any(letter.isalpha() for letter in suffix):
        return _Kind.LEFT_OUT
    if not stat.S_ISREG(path.stat().st_mode):
        return _Kind.OTHER
    with path.open("rb") as file:
        return _kind_of_content(file.read(SIGNATURE_BYTES))


def _kind_of_content(head: bytes) -> _Kind:
    if is_heic(head):
        return _Kind.IMAGE if reads_heic() else _Kind.LEFT_OUT
    is_image = (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))  # the reserved bytes of BMP
        or not _brands(head).isdisjoint(_AVIF_BRANDS)
    )
    return _Kind.IMAGE if is_image else _Kind.OTHER
