"""Linear transform of global descriptors, and the similarity of transformed ones computed from the stored ones.

With W symmetric, the transformed descriptor of an image is W (x - m) / |W (x - m)|. The cosine of a transformed query
and a transformed image is d . (x - m) / |W (x - m)|, with d = W W (q - m) / |W (q - m)|: an index needs one number per
image, and keeps its vectors as they were extracted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

_TINY = np.float32(1e-12)


@dataclass(frozen=True)
class VectorTransform:
    """Centring by `mean`, then W = I + A^T diag(gains) A, then scaling to unit norm.

    Args:
        mean: m.
        axes: A, with orthonormal rows; none for centring alone.
        gains: change of the scale along each axis, above -1.
    """

    mean: Float32[np.ndarray, " dimension"]
    axes: Float32[np.ndarray, "axes dimension"]
    gains: Float32[np.ndarray, " axes"]

    @classmethod
    def centring(cls, mean: Float32[np.ndarray, " dimension"]) -> "VectorTransform":
        """Make the transform that only subtracts a mean."""
        return cls(mean, np.empty((0, len(mean)), np.float32), np.empty(0, np.float32))

    def apply(self, vectors: Float32[np.ndarray, "rows dimension"]) -> Float32[np.ndarray, "rows dimension"]:
        """Transform descriptors; those equal to the mean become zero."""
        transformed = self._multiplied(vectors - self.mean)
        return transformed / np.maximum(np.linalg.norm(transformed, axis=1, keepdims=True), _TINY)

    def scales(self, vectors: Float32[np.ndarray, "rows dimension"]) -> Float32[np.ndarray, " rows"]:
        """Compute 1 / |W (x - m)| of each descriptor; 0 for those equal to the mean."""
        norms = np.linalg.norm(self._multiplied(vectors - self.mean), axis=1)
        return np.where(norms > _TINY, 1 / np.maximum(norms, _TINY), 0).astype(np.float32)

    def duals(
        self, transformed: Float32[np.ndarray, "queries dimension"]
    ) -> tuple[Float32[np.ndarray, "queries dimension"], Float32[np.ndarray, " queries"]]:
        """Compute d and -d . m of transformed queries.

        The inner product of d with a stored x plus the second, times the scale of x, is the cosine.
        """
        duals = self._multiplied(transformed)
        return duals, -(duals @ self.mean)

    def _multiplied(self, centred: Float32[np.ndarray, "rows dimension"]) -> Float32[np.ndarray, "rows dimension"]:
        """Multiply by W."""
        return centred + ((centred @ self.axes.T) * self.gains) @ self.axes
