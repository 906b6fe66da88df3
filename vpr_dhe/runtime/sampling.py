"""Samples that are spread evenly."""

import numpy as np
from jaxtyping import Int64


def evenly_spread(total: int, count: int, *, with_last: bool = True) -> Int64[np.ndarray, " chosen"]:
    """Choose `count` places, ascending, of a list of length `total`, or all where there are fewer.

    The first is always among them. The last is too, unless `with_last` is False: each then stands for as many that
    follow it.
    """
    count = min(count, total)
    if with_last:
        return np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    return np.arange(count) * total // max(1, count)
