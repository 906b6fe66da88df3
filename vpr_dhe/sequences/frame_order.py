"""Order in which images were taken, by their times and names."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from vpr_dhe.runtime.text import counted

_DIGITS = re.compile(r"(\d+)")
# Share of times, in the order of names, that may be wrong.
_MAX_WRONG = 0.1
# Share of steps at which a clock may have been set, where names are numbers.
_MAX_SET = 0.05


@dataclass(frozen=True)
class TakenOrder:
    """Order of some images, as positions in the sequence that was given.

    `times_s` are their times in the sequence given, where wrong ones are replaced by those between their neighbours';
    `note` says what is wrong with them, or is None.
    """

    order: list[int]
    times_s: list[float]
    note: str | None = None


def natural_key(path: str) -> list[tuple[int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(path)]


def order_taken(names: Sequence[str], times_s: Sequence[float]) -> TakenOrder:
    """Order images by time, unless a few times contradict the order of their names: then by name.

    That is so if at most a tenth of the times are out of order, such as stamps of 0, or if names differ in numbers
    alone and times go back once, or at no more than a twentieth of the steps, as by a clock that was set.
    """
    by_name = sorted(range(len(names)), key=lambda number: natural_key(names[number]))
    times = np.array([times_s[number] for number in by_name], np.float64)
    back = np.flatnonzero(np.diff(times) < 0)
    if not len(back):
        return TakenOrder(by_name, list(times_s))
    in_order = _longest_ascent(times)
    few_wrong = (~in_order).sum() <= _MAX_WRONG * len(times)
    was_set = len({_DIGITS.sub("0", name) for name in names}) == 1 and len(back) <= max(1, _MAX_SET * len(times))
    if not few_wrong and not was_set:
        return TakenOrder(sorted(by_name, key=lambda number: times_s[number]), list(times_s))
    before, after = times[back[0] : back[0] + 2]
    often, example = counted(len(back), "time"), names[by_name[back[0] + 1]]
    fault = f"times go back {often}, such as from {before:.3f} to {after:.3f} s at {example}"
    note = f"{fault}; the order is that of the names"
    if few_wrong:
        places = np.arange(len(times))
        times = np.where(in_order, times, np.interp(places, places[in_order], times[in_order]))
    repaired = dict(zip(by_name, times.tolist(), strict=True))
    return TakenOrder(by_name, [repaired[number] for number in range(len(names))], note)


def _longest_ascent(times: Float64[np.ndarray, " times"]) -> Bool[np.ndarray, " times"]:
    """Mask of a longest subsequence that never falls (patience sorting, by binary search)."""
    ends: list[float] = []
    last: list[int] = []
    previous = np.full(len(times), -1)
    for number, time in enumerate(times.tolist()):
        length = bisect_right(ends, time)
        previous[number] = last[length - 1] if length else -1
        ends[length : length + 1], last[length : length + 1] = [time], [number]
    mask, number = np.zeros(len(times), bool), last[-1]
    while number >= 0:
        mask[number], number = True, int(previous[number])
    return mask
