"""Correction of hubs: images that are similar to everything, and so answer the queries of other places.

Source: Jegou, Harzallah and Schmid, "A contextual dissimilarity measure for accurate and efficient image search", CVPR
2007; Conneau et al., "Word translation without parallel data", ICLR 2018 (cross-domain similarity local scaling).
"""

import numpy as np
from jaxtyping import Bool, Float32

from vpr_dhe.index.adaptation.map_images import MapImages, mask_of

NEIGHBOURS = 10
"""Number of most similar images of other places whose similarities are averaged."""

# Rows whose similarities to the reference are in memory at once.
_BLOCK_ROWS = 1024


class Reference:
    """Transformed descriptors of some images of the map, among which the nearest to a hub are searched."""

    def __init__(self, transformed: Float32[np.ndarray, "reference dimension"], images: MapImages) -> None:
        self._transformed, self._images = transformed, images

    def hub_means(
        self, transformed: Float32[np.ndarray, "rows dimension"], images: MapImages
    ) -> Float32[np.ndarray, " rows"]:
        """Mean similarity of each image to the nearest at other places.

        NaN for images without a position, and where no image of the reference is left.
        """
        means = np.full(len(transformed), np.nan, np.float32)
        rows = np.flatnonzero(~np.isnan(images.points_m).any(axis=1)) if len(self._transformed) else ()
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            same_place = mask_of(self._images.near_points(images.points_m[block]), len(self._images))
            means[block] = hub_means(transformed[block], self._transformed, same_place)
        return means


def hub_means(
    rows: Float32[np.ndarray, "rows dimension"],
    others: Float32[np.ndarray, "others dimension"],
    same_place: Bool[np.ndarray, "rows others"],
) -> Float32[np.ndarray, " rows"]:
    """Mean similarity of transformed descriptors to their nearest others; 0 for rows without others elsewhere."""
    similarities = rows @ others.T
    similarities[same_place] = -np.inf
    count = min(NEIGHBOURS, len(others))
    if not count:
        return np.zeros(len(rows), np.float32)
    best = np.partition(similarities, len(others) - count, axis=1)[:, len(others) - count :]
    found = np.isfinite(best)
    return (np.where(found, best, 0).sum(axis=1) / np.maximum(1, found.sum(axis=1))).astype(np.float32)
