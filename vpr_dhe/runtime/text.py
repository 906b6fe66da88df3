"""Formatting of numbers and names in messages."""

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches

_CONTROLS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def counted(count: int, singular: str, plural: str = "") -> str:
    """Format a count with its noun, such as `1 image` or `2 images`; `plural` defaults to `singular` with an s."""
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"


def none_of(count: int, singular: str, plural: str = "") -> str:
    """Subject of a negative sentence: `none of the 3 images` or, for one, `no image`."""
    return f"no {singular}" if count == 1 else f"none of the {counted(count, singular, plural)}"


def one_line(text: str) -> str:
    """Escape control characters, such as line breaks in file names."""
    return text if text.isprintable() else _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the nearest known name, such as ` (did you mean 'magsac'?)`, or return an empty string."""
    nearest = get_close_matches(name, list(known), n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def number_or_nan(text: str) -> float:
    """Number in a text; NaN for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan
