"""Recall@N and mean average precision@N."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int64

RightRows: TypeAlias = Sequence[Int64[np.ndarray, " _found"]]
Predictions: TypeAlias = Sequence[Sequence[int]]


class Denominator(StrEnum):
    """Queries that recall is a share of."""

    all = "all"
    """Every query, as in VPR-methods-evaluation; a query without a positive is always missed."""
    with_positive = "with-positive"
    """Queries with a positive in the database, as in the MSLS benchmark."""


def counted_queries(positives: RightRows, denominator: Denominator) -> list[int]:
    """List the numbers of the queries in the denominator."""
    return [query for query, right in enumerate(positives) if denominator is Denominator.all or right.size > 0]


def recall_at(predictions: Predictions, positives: RightRows, ranks: Sequence[int]) -> dict[int, float]:
    """Compute recall@N, the percentage of queries with a positive among their first N predictions.

    Args:
        predictions: database rows of each query, best first.
        positives: database rows that are right for each query.
        ranks: values of N.
    """
    first_hits = [_first_hit(rows, right) for rows, right in zip(predictions, positives, strict=True)]
    return {rank: 100.0 * sum(hit < rank for hit in first_hits) / len(first_hits) for rank in ranks}


def mean_average_precision_at(predictions: Predictions, positives: RightRows, ranks: Sequence[int]) -> dict[int, float]:
    """Compute mAP@N in percent over the queries with a positive; it is undefined for the others.

    The average precision of a query with P positives is the sum of the precisions at the ranks of positives among the
    first N, divided by min(P, N).

    Source: Warburg et al., "Mapillary Street-Level Sequences", CVPR 2020, and its published evaluation.
    """
    answerable = [(rows, right) for rows, right in zip(predictions, positives, strict=True) if right.size > 0]
    hits = [(_hits(rows, right), right.size) for rows, right in answerable]
    return {
        rank: 100.0 * float(np.mean([_average_precision(marks[:rank], min(count, rank)) for marks, count in hits]))
        for rank in ranks
    }


def _average_precision(hits: Bool[np.ndarray, " _first"], attainable: int) -> float:
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precisions[hits].sum()) / attainable


def _first_hit(rows: Sequence[int], right: Int64[np.ndarray, " _found"]) -> float:
    hits = np.flatnonzero(_hits(rows, right))
    return float(hits[0]) if hits.size else float("inf")


def _hits(rows: Sequence[int], right: Int64[np.ndarray, " _found"]) -> Bool[np.ndarray, " _first"]:
    return np.isin(np.asarray(rows, dtype=np.int64), right)
