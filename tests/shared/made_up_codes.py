"""Binary codes of made-up descriptors: their signs along random directions, so that similar ones have similar codes."""

import numpy as np

BITS = 1024


def codes_of(vectors: np.ndarray) -> np.ndarray:
    """Packed codes; the angle of two descriptors is proportional to the expected distance of their codes."""
    directions = np.random.default_rng(3).standard_normal((vectors.shape[1], BITS))
    return np.packbits(vectors @ directions >= 0, axis=1)
