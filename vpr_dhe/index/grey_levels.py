"""Grey levels of the 16-bit images of an index: one rule for all of them, found from its first images or given."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from vpr_dhe.errors import BadInputError
from vpr_dhe.images.loading import ImageLike, deep_values
from vpr_dhe.images.opened import FULL_RANGE, is_deep_file
from vpr_dhe.images.view_names import file_of
from vpr_dhe.index.manifest import Manifest
from vpr_dhe.records import GreyLevels, ImageRecord
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.sampling import evenly_spread

BITS = range(8, 17)
_USUAL_BITS = (8, 10, 12, 14, 16)
_SAMPLE = 64
# Formats with pixels of 16 bits, and files without an ending.
_EXTENSIONS = frozenset({"", ".png", ".apng", ".tif", ".tiff", ".pgm", ".pnm", ".jp2", ".j2k", ".im"})
# A faulty pixel must not decide.
_TAIL_PERCENT = 0.1
# Images that use less than this share of a sensor's range are stretched, as radiometric ones are.
_MIN_SHARE = 0.25
# Share of the range found that is added at either end, because later images may be warmer or colder.
_MARGIN = 0.1
# Noise alone must not be stretched.
_MIN_RANGE = 128


def parse_bit_depth(text: str) -> GreyLevels | None:
    """Read `auto` (None), a number of bits such as 12, or LOW:HIGH such as 7000:9000.

    Raises:
        BadInputError: if it is none of these.
    """
    if text == AUTO:
        return None
    low, colon, high = text.partition(":")
    if colon and low.isdecimal() and high.isdecimal() and int(low) < int(high) <= FULL_RANGE.high:
        return GreyLevels(int(low), int(high))
    if not colon and text.isdecimal() and int(text) in BITS:
        return GreyLevels(0, 2 ** int(text) - 1)
    raise BadInputError(
        f"the bit depth is {text!r}; expected auto, 8 to 16 bits such as 12, or LOW:HIGH up to 65535, such as 7000:9000"
    )


def find_grey_levels(images: Iterable[ImageLike | Path | bytes]) -> GreyLevels | None:
    """Find the grey levels of the 16-bit images among these; None if there are none.

    The levels are those of the fewest usual bits that hold the values, or, where these use less than a quarter of them,
    the range of the values with a tenth of it at either end.
    """
    ranges = [
        np.percentile(values, (_TAIL_PERCENT, 100 - _TAIL_PERCENT))
        for image in images
        if (values := deep_values(image)) is not None
    ]
    if not ranges:
        return None
    low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
    top = next(2**bits - 1 for bits in _USUAL_BITS if high <= 2**bits - 1)
    if high - low >= _MIN_SHARE * top:
        return GreyLevels(0, top)
    margin = max(_MARGIN * (high - low), (_MIN_RANGE - (high - low)) / 2)
    return GreyLevels(max(0, round(low - margin)), min(FULL_RANGE.high, round(high + margin)))


def with_grey_levels(manifest: Manifest, to_extract: Sequence[ImageRecord]) -> Manifest:
    """Copy of a manifest with grey levels, if they are to be found and these images have 16 bits."""
    if not manifest.needs_grey_levels:
        return manifest
    names = [record.path for record in to_extract if file_of(Path(record.path)).suffix.lower() in _EXTENSIONS]
    paths = [manifest.folders.locate(name) for name in names]
    sample = [paths[row] for row in evenly_spread(len(paths), _SAMPLE)]
    levels = find_grey_levels(sample)
    if levels is None and len(paths) > len(sample):  # 16-bit images may be few among others
        levels = find_grey_levels(islice((path for path in paths if is_deep_file(path)), _SAMPLE))
    return replace(manifest, grey_levels=levels)
