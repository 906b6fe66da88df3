"""Parsing of latitudes and longitudes in the metadata of images."""

import math
import re
from collections.abc import Sequence

LATITUDE, LONGITUDE = ("NS", 90.0), ("EW", 180.0)
"""Letters of the positive and the negative hemisphere, and the maximum number of degrees."""

_SIDES = {"NORTH": "N", "SOUTH": "S", "EAST": "E", "WEST": "W"}
_NUMBER = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:/(\d+(?:\.\d*)?))?", re.ASCII)
_WORD = re.compile(r"[A-Za-z]+")
_UNITS = frozenset({"D", "DEG", "DEGREES", "M", "MIN", "SEC"})
# Larger numerators of unsigned rationals are negative numbers of the wrong type.
_FIRST_WRAPPED, _WRAP = 2**31, 2**32
_TOLERANCE = 1e-6


class UnreadAngleError(ValueError):
    """Ambiguous or invalid latitude or longitude; the message is a short reason."""


def number_of(value: object) -> float | None:
    """Convert a finite number; None for other values, such as a rational with a denominator of zero."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]  # any type
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def degrees_of_parts(parts: Sequence[object], reference: str, kind: tuple[str, float]) -> float:
    """Convert degrees, minutes and seconds to signed degrees.

    Minutes and seconds may be missing or unknown (0/0) if the part before them has a fraction. The hemisphere is given
    by the reference, in upper or lower case, or by a minus sign.

    Args:
        parts: one to three numbers of any type.
        reference: letter or name of the hemisphere; empty if there is none.
        kind: LATITUDE or LONGITUDE.

    Raises:
        UnreadAngleError: if parts are missing, contradict each other or the reference, or are too large, or if neither
            reference nor sign gives the hemisphere.
    """
    sides, limit = kind
    numbers = _complete(parts)
    first, *rest = [number for number in numbers if number] or [0.0]
    if any(number < 0 for number in rest) and not all(number < 0 for number in (first, *rest)):
        raise UnreadAngleError("parts of different signs")
    degrees, minutes, seconds = map(abs, numbers)
    if (_has_fraction(degrees) and (minutes or seconds)) or (_has_fraction(minutes) and seconds):
        raise UnreadAngleError("fractions beside smaller units")
    total = degrees + minutes / 60 + seconds / 3600
    # 60 may result from rounding 59.99.
    if minutes > 60 or seconds > 60 or total > limit:
        raise UnreadAngleError("a number out of range")
    return _on_side(total, _side_of(reference, sides), sides, negative=first < 0)


def degrees_of_text(text: str, reference: str, kind: tuple[str, float], *, signed: bool = False) -> float:
    """Convert text such as "37,48.6S" (XMP), "37 deg 48' 36'' S" or "-37.81" to signed degrees.

    Args:
        text: one to three numbers, possibly with a sign, units and the letter of the hemisphere.
        reference: letter or name of the hemisphere, if it is given separately.
        kind: LATITUDE or LONGITUDE.
        signed: whether numbers without a sign are positive, and a single whole number is complete, as in the metadata
            of drones and in tables.

    Raises:
        UnreadAngleError: as for `degrees_of_parts`.
    """
    words = [word for word in _WORD.findall(text) if word.upper() not in _UNITS]
    found = _NUMBER.findall(text)
    if len(words) > 1 or not 1 <= len(found) <= 3:
        raise UnreadAngleError(f"{text[:40]!r}")
    parts = [_Part(sign, number, divisor, complete=signed) for sign, number, divisor in found]
    side = words[0] if words else reference
    if not side and (signed or found[0][0] == "+") and not any(sign == "-" for sign, _, _ in found):
        side = kind[0][0]
    return degrees_of_parts(parts, side, kind)


class _Part:
    """Number in a text, with its denominator: 1 for a number without fraction, which needs a smaller unit after it."""

    def __init__(self, sign: str, number: str, divisor: str, *, complete: bool) -> None:
        self.denominator = 2 if complete or "." in number else float(divisor or 1)
        self._value = float(sign + number) / float(divisor or 1) if float(divisor or 1) else math.nan

    def __float__(self) -> float:
        return self._value


def _complete(parts: Sequence[object]) -> tuple[float, float, float]:
    if not 1 <= len(parts) <= 3:
        raise UnreadAngleError(f"{len(parts)} parts")
    numbers = [_unwrapped(part) for part in parts]
    if all(number is None for number in numbers):
        raise UnreadAngleError("no fix")
    known = [number for number in numbers if number is not None]
    if known != numbers[: len(known)] or (len(known) < 3 and not _states_fractions(parts[len(known) - 1])):
        raise UnreadAngleError("missing minutes or seconds")
    degrees, minutes, seconds = (*known, 0.0, 0.0)[:3]
    return degrees, minutes, seconds


def _unwrapped(part: object) -> float | None:
    number, numerator = number_of(part), getattr(part, "numerator", 0)
    if number is not None and number > LONGITUDE[1] and _FIRST_WRAPPED <= numerator < _WRAP:
        return (numerator - _WRAP) / getattr(part, "denominator", 1)
    return number


def _states_fractions(part: object) -> bool:
    number = number_of(part)
    return getattr(part, "denominator", 1) > 1 or (number is not None and _has_fraction(number))


def _has_fraction(number: float) -> bool:
    return abs(number - round(number)) > _TOLERANCE


def _side_of(reference: str, sides: str) -> str | None:
    given = reference.strip().upper()
    side = _SIDES.get(given, given)
    if not side:
        return None
    if len(side) != 1 or side not in sides:
        raise UnreadAngleError(f"hemisphere {reference[:12]!r}")
    return side


def _on_side(total: float, side: str | None, sides: str, *, negative: bool) -> float:
    if negative and side == sides[0]:
        raise UnreadAngleError("a sign against its hemisphere")
    if side is None and not negative:
        raise UnreadAngleError("no hemisphere")
    return 0.0 - total if negative or side == sides[1] else total  # avoids -0.0
