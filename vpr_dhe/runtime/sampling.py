"""Samples that are spread evenly."""

import numpy as np
from jaxtyping import Int64


def evenly_spread(total: int, count: int) -> Int64[np.ndarray, " chosen"]:
    """Ascending places in a list of length `total`: `count` of them from the first to the last, or all if fewer."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))
