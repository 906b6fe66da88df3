"""Correction of hubs: images that are similar to everything, and so answer the queries of other places.

Source: Jegou, Harzallah and Schmid, "A contextual dissimilarity measure for accurate and efficient image search", CVPR
2007; Conneau et al., "Word translation without parallel data", ICLR 2018 (cross-domain similarity local scaling).
"""

import numpy as np
from jaxtyping import Bool, Float32

NEIGHBOURS = 10
"""Number of most similar images of other places whose similarities are averaged."""


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
