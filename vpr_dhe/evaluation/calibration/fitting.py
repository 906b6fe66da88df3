"""Fit a calibration to queries whose places are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.calibration.features import CalibrationFeatures
from vpr_dhe.localization.calibration.probability import Calibration, Conditions


class Method(StrEnum):
    """Model that maps features to a probability."""

    logistic = "logistic"
    """Logistic regression: few parameters, smooth."""
    isotonic = "isotonic"
    """Isotonic regression on the logistic score: any monotone curve, so it needs more examples."""


@dataclass(frozen=True)
class Example:
    """One labelled query: the features of its best match, and whether that match is right.

    `shown_by` are the ids of the database images that show the query's place; `place_known` says whether the query was
    compared with any of them.
    """

    features: CalibrationFeatures
    right: bool
    place_known: bool
    shown_by: frozenset[int]


@dataclass(frozen=True)
class Assumptions:
    """Settings of a fit that the examples do not determine.

    Args:
        radius_m: maximum distance of images that show the same place.
        prior: expected share of queries whose place is in the index, in (0, 1); low for exploration, high in a mapped
            area.
        method: model that maps features to a probability.
        features: names of the features to use; None uses all.

    Raises:
        BadInputError: if `prior` is out of range.
    """

    radius_m: float
    prior: float = 0.5
    method: Method = Method.logistic
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise BadInputError(f"the share of queries whose place is known is {self.prior}; expected 0 < prior < 1")


def fit(examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions, images: int) -> Calibration:
    """Fit a calibration by maximum likelihood, with ridge regularisation on standardised features.

    Queries whose place is known get the total weight `prior`, the others the rest, however many there are of either.

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
    names = assumptions.features or tuple(examples[0].features.inputs)
    features = np.array([[example.features.inputs[name] for name in names] for example in examples])
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
    """Weights with mean 1 that give the queries whose place is known the share `prior`."""
    known = np.array([example.place_known for example in examples])
    return len(examples) * np.where(known, prior / max(1, known.sum()), (1 - prior) / max(1, (~known).sum()))


def _require_both_kinds(examples: Sequence[Example]) -> None:
    if not any(example.right for example in examples):
        raise BadInputError(
            f"none of the {len(examples)} best matches shows the query's place, but a calibration needs right and "
            "wrong ones; give queries of places that the index holds"
        )
    if all(example.place_known for example in examples):
        raise BadInputError(
            "every indexed image shows the place of every query, but a calibration needs unknown places too; "
            "index more places"
        )
