"""Recall@N: the share of queries with a positive among their first N predictions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64


def recall_at(
    predictions: Sequence[Sequence[int]], positives: Sequence[Int64[np.ndarray, " _found"]], ranks: Sequence[int]
) -> dict[int, float]:
    """Compute recall@N in percent over all queries; one without any positive can only count as missed.

    Args:
        predictions: database rows of each query, best first.
        positives: database rows that are right for each query.
        ranks: the values of N.
    """
    first_hits = [_first_hit(rows, right) for rows, right in zip(predictions, positives, strict=True)]
    return {rank: 100.0 * sum(hit < rank for hit in first_hits) / len(first_hits) for rank in ranks}


def _first_hit(rows: Sequence[int], right: Int64[np.ndarray, " _found"]) -> float:
    hits = np.flatnonzero(np.isin(np.asarray(rows, dtype=np.int64), right))
    return float(hits[0]) if hits.size else float("inf")
