"""Pairs of images of one place, from which an index learns what changes without the place."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import PairSource

Pairs: TypeAlias = Int64[np.ndarray, "_pairs 2"]

MAX_PAIRS = 1 << 13
"""Largest number of pairs to learn from."""

# Near enough to see the same, in the same direction; less alike than this, something stands in between.
_RADIUS_M, _MAX_TURN_DEG, _MIN_SIMILARITY = 20.0, 30.0, 0.2
# Neighbours in time: a moving camera sees about the same for some seconds.
_MAX_GAP_S, _MAX_STEPS = 3.0, 2
_MAX_NEIGHBOURS = 64


def pairs_of(images: MapImages, source: PairSource, seed: int = 0) -> Pairs:
    """Choose pairs of neighbours by positions and headings, or by times; at most four times `MAX_PAIRS`.

    Unknown headings count as equal. `alike` then drops pairs that look unlike.
    """
    pairs = _neighbours_in_space(images, seed) if source == "positions" else _neighbours_in_time(images)
    return _limited(pairs, 4 * MAX_PAIRS, seed)


def alike(
    left: Float32[np.ndarray, "pairs dimension"],
    right: Float32[np.ndarray, "pairs dimension"],
    mean: Float32[np.ndarray, " dimension"],
) -> Bool[np.ndarray, " pairs"]:
    """Mask of pairs whose centred descriptors have a cosine above 0.2."""
    left, right = left - mean, right - mean
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.einsum("pd,pd->p", left, right) > _MIN_SIMILARITY * norms


def _neighbours_in_space(images: MapImages, seed: int) -> Pairs:
    from scipy.spatial import KDTree  # takes a moment to import

    tree = KDTree(images.points_m)
    anchors = np.arange(len(images))
    if len(images) > MAX_PAIRS:
        anchors = np.sort(np.random.default_rng(seed).choice(len(images), MAX_PAIRS, replace=False))
    near, others = tree.query(images.points_m[anchors], min(len(images), _MAX_NEIGHBOURS), workers=1)
    near, others = near.reshape(len(anchors), -1), others.reshape(len(anchors), -1)
    left = np.repeat(anchors, near.shape[1])[(near <= _RADIUS_M).ravel()]
    right = others[near <= _RADIUS_M]
    turn = _turns_deg(images.headings_deg[left], images.headings_deg[right])
    kept = (left != right) & (np.isnan(turn) | (turn <= _MAX_TURN_DEG))
    return np.unique(np.sort(np.stack([left[kept], right[kept]], axis=1), axis=1), axis=0).reshape(-1, 2)


def _turns_deg(
    left: Float64[np.ndarray, " pairs"], right: Float64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    return np.abs((left - right + 180) % 360 - 180)


def _neighbours_in_time(images: MapImages) -> Pairs:
    order = np.argsort(images.times_s, kind="stable")
    times = images.times_s[order]
    steps = [(order[:-step], order[step:], times[step:] - times[:-step]) for step in range(1, _MAX_STEPS + 1)]
    pairs = [np.stack([left, right], axis=1)[gap <= _MAX_GAP_S] for left, right, gap in steps if len(left)]
    return np.concatenate([np.empty((0, 2), np.int64), *pairs])


def _limited(pairs: Pairs, count: int, seed: int) -> Pairs:
    if len(pairs) <= count:
        return pairs
    return pairs[np.sort(np.random.default_rng(seed).choice(len(pairs), count, replace=False))]
