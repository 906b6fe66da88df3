"""Evenly spaced samples."""

import numpy as np
from jaxtyping import Int64


def evenly_spread(total: int, count: int, *, with_last: bool = True) -> Int64[np.ndarray, " chosen"]:
    """Choose `count` evenly spaced indices, ascending, in a list of length `total`, or all if there are fewer.

    The first index is always included. The last is included if `with_last`; otherwise each index starts a run of equal
    length.
    """
    count = min(count, total)
    if with_last:
        return np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    return np.arange(count) * total // max(1, count)
