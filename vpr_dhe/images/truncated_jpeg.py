"""JPEG files that lack their last bytes, as after an interrupted copy or a crash of a camera.

OpenCV, browsers and libjpeg decode such files and fill missing blocks with one colour; Pillow refuses them.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

START = b"\xff\xd8"
"""First bytes of a JPEG."""

_END = b"\xff\xd9"
_SCAN, _PROGRESSIVE_FRAMES = 0xDA, frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_LAST_COEFFICIENT = 63
# Maximum height of missing rows: one row of blocks of at most 16 pixels, or a few in large images.
_MAX_MISSING_ROWS, _MAX_MISSING_PART = 16, 0.02


def with_end(content: bytes) -> bytes | None:
    """Append the end marker to a JPEG that lacks it and in which all scans have begun; None for other files."""
    if not content.startswith(START) or content.rstrip(b"\0").endswith(_END) or not _has_all_scans(content):
        return None
    return content.removesuffix(b"\xff") + _END


def is_nearly_whole(pixels: UInt8[np.ndarray, "height width channels"]) -> bool:
    """Whether at most a few rows at the bottom have the single colour with which decoders fill missing blocks."""
    flat = (pixels == pixels[-1, -1]).all(axis=(1, 2))[::-1]
    missing = len(flat) if flat.all() else int(np.argmin(flat))
    return missing <= max(_MAX_MISSING_ROWS, _MAX_MISSING_PART * len(flat))


def _has_all_scans(content: bytes) -> bool:
    """Whether the last scan of each coefficient has begun; always true for sequential files with one scan.

    Progressive files contain coefficients in several scans; the last scan of a coefficient has Al = 0 (ISO/IEC 10918-1,
    table B.3).
    """
    progressive, begun = False, set[int]()
    for marker, segment in _segments(content):
        progressive = progressive or marker in _PROGRESSIVE_FRAMES
        if marker == _SCAN and len(segment) >= 4:
            first, last, approximation = segment[-3:]
            if approximation & 0x0F == 0:
                begun.update(range(first, last + 1))
    return len(begun) > _LAST_COEFFICIENT if progressive else bool(begun)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield markers with their segments, skipping entropy-coded data."""
    place = len(START)
    while 0 <= place < len(content) - 3:
        if content[place] != 0xFF or content[place + 1] in (0x00, 0xFF):
            place = content.find(b"\xff", place + 1)
            continue
        marker = content[place + 1]
        if marker in _STANDALONE:
            place += 2
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        yield marker, content[place + 4 : end]
        place = end
