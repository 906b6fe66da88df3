"""Whitening learned from pairs of images of one place.

Source: Radenovic, Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, section 3.4;
Mikolajczyk and Matas, "Improving descriptors for fast tree matching by optimal linear projection", ICCV 2007.
"""

import numpy as np
from jaxtyping import Float32, Float64

from vpr_dhe.index.adaptation.transform import VectorTransform

MAX_AXES = 1024
"""Largest number of directions that are whitened one by one; the others share one scale."""

_SEED = 0


def fit_whitening(
    mean: Float32[np.ndarray, " dimension"], differences: Float32[np.ndarray, "pairs dimension"]
) -> VectorTransform:
    """Divide each direction by the deviation within places along it, regularised.

    The variance of the mean direction is added to that of all directions, and more if there are fewer pairs than
    dimensions.

    Args:
        mean: of all descriptors.
        differences: between two descriptors of one place, at least one.
    """
    pairs, dimension = differences.shape
    variances, axes = _principal(differences)
    total = float(np.einsum("pd,pd->", differences, differences, dtype=np.float64)) / pairs
    ridge = total / dimension * max(1.0, dimension / pairs)
    rest = max(0.0, total - float(variances.sum())) / max(1, dimension - len(variances))
    gains = np.sqrt((rest + ridge) / (variances + ridge)) - 1
    return VectorTransform(mean, axes, gains.astype(np.float32))


def _principal(
    differences: Float32[np.ndarray, "pairs dimension"],
) -> tuple[Float64[np.ndarray, " axes"], Float32[np.ndarray, "axes dimension"]]:
    """Largest variances of the differences, uncentred, and their directions."""
    pairs, dimension = differences.shape
    if dimension <= MAX_AXES:
        moments = differences.T.astype(np.float64) @ differences / pairs
        variances, axes = np.linalg.eigh(moments)
        return np.maximum(variances, 0), np.ascontiguousarray(axes.T, np.float32)
    from sklearn.utils.extmath import randomized_svd  # takes a second to import

    count = min(MAX_AXES, pairs)
    _, singular, axes = randomized_svd(differences, count, n_iter=2, random_state=_SEED)  # pyright: ignore[reportArgumentType]
    return (singular.astype(np.float64) ** 2) / pairs, np.ascontiguousarray(axes, np.float32)
