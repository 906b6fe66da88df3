"""Precision-recall curve over the minimum score of an accepted best match."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision-recall curve of one method, from the highest threshold to the lowest.

    A query is answered if its best match has at least the threshold's score. `precision` is the percentage of answered
    queries that are right, `recall` the percentage of queries with a positive that are answered right. `area` is the
    sum of precision over the steps of recall, without interpolation between thresholds, in percent.
    `recall_at_full_precision` is the highest recall without a wrong answer.
    """

    thresholds: Float64[np.ndarray, " _thresholds"]
    precision: Float64[np.ndarray, " _thresholds"]
    recall: Float64[np.ndarray, " _thresholds"]
    area: float
    recall_at_full_precision: float


def precision_recall(scores: Sequence[float], right: Sequence[bool], answerable: int) -> PrecisionRecall | None:
    """Compute the curve; None if no query has a positive or none was answered.

    Args:
        scores: score of the best match of each answered query.
        right: whether that match is a positive.
        answerable: number of queries with a positive.
    """
    from sklearn.metrics import precision_recall_curve

    if not answerable or not scores:
        return None
    share_right = sum(right) / answerable
    if share_right == 0:
        lowest = np.array([min(scores)])
        return PrecisionRecall(lowest, np.zeros(1), np.zeros(1), area=0.0, recall_at_full_precision=0.0)
    precision, recall, thresholds = precision_recall_curve(np.asarray(right, bool), np.asarray(scores, np.float64))
    # From the highest threshold on, without the point where nothing is answered. scikit-learn's recall is a share of
    # the right best matches; here a query whose positive ranks second is missed, too.
    precision, recall = 100.0 * precision[-2::-1], 100.0 * share_right * recall[-2::-1]
    return PrecisionRecall(
        thresholds[::-1],
        precision,
        recall,
        area=float(precision @ np.diff(recall, prepend=0.0)) / 100.0,
        recall_at_full_precision=float(recall[precision == 100.0].max(initial=0.0)),
    )
