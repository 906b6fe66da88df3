"""Array types of the synthetic town.

World: x east, y north, z up, in metres. Pixels: x right, y down, the centre of the top-left pixel is (0, 0).
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

Vector: TypeAlias = Float64[np.ndarray, "3"]
Matrix: TypeAlias = Float64[np.ndarray, "3 3"]


def read_only(array: np.ndarray) -> np.ndarray:
    """Make an array read-only, and return it."""
    array.setflags(write=False)
    return array
