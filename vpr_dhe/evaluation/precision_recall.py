"""When not to answer: precision and recall as the least score of an accepted answer moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class PrecisionRecall:
    """The curve of one method, from the highest threshold to the lowest.

    A query is answered by its best match if that has at least the threshold's score. `precision` is the share of right
    answers among those given, `recall` the share of right answers among the queries that have one in the database; both
    in percent. `area` is the sum of precision over the steps of recall, without interpolation between thresholds, also
    in percent. `recall_at_full_precision` is the highest recall at which no answer is wrong.
    """

    thresholds: Float64[np.ndarray, " _thresholds"]
    precision: Float64[np.ndarray, " _thresholds"]
    recall: Float64[np.ndarray, " _thresholds"]
    area: float
    recall_at_full_precision: float


def precision_recall(scores: Sequence[float], right: Sequence[bool], answerable: int) -> PrecisionRecall | None:
    """Compute the curve; None where no query has a right answer or none was answered.

    Args:
        scores: of the best match of each query that was answered.
        right: whether that match shows the query's place.
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
    # From the highest threshold on, without the point at which nothing is answered. scikit-learn takes recall of the
    # answers that are right; a query whose right place came second is missed all the same.
    precision, recall = 100.0 * precision[-2::-1], 100.0 * share_right * recall[-2::-1]
    return PrecisionRecall(
        thresholds[::-1],
        precision,
        recall,
        area=float(precision @ np.diff(recall, prepend=0.0)) / 100.0,
        recall_at_full_precision=float(recall[precision == 100.0].max(initial=0.0)),
    )
