"""Formats of image files: their extensions, and their first bytes."""

import stat
from enum import Enum, auto
from functools import cache
from pathlib import Path

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
"""Number of bytes at the beginning of a file that tell its format."""
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})

HEIC_HINT = 'to read HEIC, install pillow-heif with: pip install "vpr-dhe[heic]"'


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


def has_image_extension(name: str) -> bool:
    """Whether a file name has the extension of an image, with the rules of `Path.suffix`."""
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in EXTENSIONS


class FileKind(Enum):
    """Image, file that may be an image but cannot be read, or other file."""

    IMAGE = auto()
    LEFT_OUT = auto()
    OTHER = auto()


def kind_of(path: Path) -> FileKind:
    """Kind of a file by its extension or, without one, by its first bytes.

    Raises:
        OSError: if it is a dangling link or cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix in EXTENSIONS:
        return FileKind.IMAGE
    if suffix in _COMPANIONS or path.name.lower() in _LITTER:
        return FileKind.OTHER
    if path.is_symlink():
        path.stat()  # raises for a dangling link, such as to a drive that is not mounted
    if suffix in HEIC_EXTENSIONS:
        return FileKind.IMAGE if reads_heic() else FileKind.LEFT_OUT
    # Dots in dates and numbers do not start an extension.
    if any(letter.isalpha() for letter in suffix):
        return FileKind.LEFT_OUT
    if not stat.S_ISREG(path.stat().st_mode):
        return FileKind.OTHER
    with path.open("rb") as file:
        return _kind_of_content(file.read(SIGNATURE_BYTES))


def _kind_of_content(head: bytes) -> FileKind:
    if is_heic(head):
        return FileKind.IMAGE if reads_heic() else FileKind.LEFT_OUT
    is_image = (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))  # the reserved bytes of BMP
        or not _brands(head).isdisjoint(_AVIF_BRANDS)
    )
    return FileKind.IMAGE if is_image else FileKind.OTHER
