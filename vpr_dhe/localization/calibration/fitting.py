"""Fit a calibration to queries of which it is known what they show."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.calibration.evidence import MatchEvidence
from vpr_dhe.localization.calibration.probability import Calibration, Conditions


class Method(StrEnum):
    """How evidence becomes a probability."""

    logistic = "logistic"
    """Logistic regression: few parameters, smooth."""
    isotonic = "isotonic"
    """Isotonic regression on the logistic score: any monotone curve, so it needs more examples."""


@dataclass(frozen=True)
class Example:
    """One query asked: the evidence for its best match, and whether that shows its place.

    `shown_by` are the ids of the indexed images that show the query's place; `place_known` says whether any of them was
    among those that the query was compared with.
    """

    evidence: MatchEvidence
    right: bool
    place_known: bool
    shown_by: frozenset[int]


@dataclass(frozen=True)
class Assumptions:
    """What is fitted, besides the examples.

    Args:
        radius_m: up to which distance images show one place.
        prior: the share of queries whose place the index holds; smaller for who explores, larger for who works where
            all is mapped.
        method: how evidence becomes a probability.
    """

    radius_m: float
    prior: float = 0.5
    method: Method = Method.logistic

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise BadInputError(f"the share of queries whose place is known is {self.prior}; expected 0 < prior < 1")


def fit(examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions, images: int) -> Calibration:
    """Fit a calibration by maximum likelihood, with a ridge on standardised features.

    Queries whose place is known weigh `prior` together, the others the rest, however many there are of either.

    Raises:
        BadInputError: if no best match is right, or every query's place is known.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999 (logistic); Zadrozny and Elkan,
    "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002 (isotonic).
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    right = np.array([example.right for example in examples])
    _require_both_kinds(examples)
    names = tuple(examples[0].evidence.features)
    features = np.array([list(example.evidence.features.values()) for example in examples])
    weights = example_weights(examples, assumptions.prior)
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression().fit(scaler.transform(features), right, sample_weight=weights)
    coefficients = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - coefficients @ scaler.mean_)
    steps: tuple[tuple[float, float], ...] = ()
    if assumptions.method is Method.isotonic:
        fitted = IsotonicRegression().fit(features @ coefficients + intercept, right, sample_weight=weights)
        steps = tuple(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))
    return Calibration(
        conditions=conditions,
        radius_m=assumptions.radius_m,
        right_share=float(np.average(right, weights=weights)),
        examples=len(examples),
        right=int(right.sum()),
        images=images,
        intercept=intercept,
        coefficients=dict(zip(names, coefficients.tolist(), strict=True)),
        steps=steps,
    )


def example_weights(examples: Sequence[Example], prior: float) -> Float64[np.ndarray, " examples"]:
    """Weights, one on average, by which queries whose place is known are the share `prior` of all."""
    known = np.array([example.place_known for example in examples])
    return len(examples) * np.where(known, prior / max(1, known.sum()), (1 - prior) / max(1, (~known).sum()))


def _require_both_kinds(examples: Sequence[Example]) -> None:
    if not any(example.right for example in examples):
        raise BadInputError(
            f"none of the {len(examples)} best matches shows the query's place, so nothing tells right from wrong; "
            "give queries of places that the index holds"
        )
    if all(example.place_known for example in examples):
        raise BadInputError(
            "every indexed image shows the place of every query, so nothing tells what an unknown place looks like; "
            "index more places"
        )
