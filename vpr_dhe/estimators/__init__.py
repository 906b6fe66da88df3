"""Homography estimators and their registry: a new method is one new file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from vpr_dhe.errors import VerifierError
from vpr_dhe.estimators.base import HomographyEstimator
from vpr_dhe.estimators.dhe import DheEstimator
from vpr_dhe.estimators.dhe_lite import DheLiteEstimator
from vpr_dhe.estimators.robust import KorniaEstimator, OpenCvEstimator, PoseLibEstimator
from vpr_dhe.models.model_file import ModelFile

DEFAULT = "magsac"
# Not an estimator: retrieval without verification.
NONE = "none"


@dataclass(frozen=True)
class Method:
    """One way to estimate homographies; `build` gets the model file of the index, where it has one."""

    build: Callable[[ModelFile | None], HomographyEstimator]
    description: str
    works_with_any_model: bool = True


METHODS: dict[str, Method] = {
    "magsac": Method(lambda _: OpenCvEstimator("magsac"), "MAGSAC++ (OpenCV USAC); the default"),
    "ransac": Method(lambda _: OpenCvEstimator("ransac"), "classic RANSAC (OpenCV)"),
    "accurate": Method(lambda _: OpenCvEstimator("accurate"), "graph-cut RANSAC (OpenCV USAC_ACCURATE)"),
    "poselib": Method(lambda _: PoseLibEstimator(), "LO-RANSAC with non-linear refinement (PoseLib)"),
    "kornia-ransac": Method(lambda _: KorniaEstimator(), "RANSAC in torch (kornia)"),
    "dhe": Method(DheEstimator.from_model, "deep homography estimation (AAAI 2024), head in the model file", False),
    "dhe-lite": Method(DheLiteEstimator.from_model, "learned weights of matches, head in the model file", False),
}


def build_estimator(name: str, model: ModelFile | None) -> HomographyEstimator:
    """Build an estimator by name, for an index made with this model (None for one without a file of its own).

    Raises:
        VerifierError: if the name is unknown, or the method needs a head that the model does not have.
    """
    if name not in METHODS:
        raise VerifierError(f"unknown verifier {name!r}; available: {', '.join([*METHODS, NONE])}")
    if not METHODS[name].works_with_any_model and (model is None or model.architecture.head != name):
        working = [other for other, method in METHODS.items() if method.works_with_any_model]
        held = "has no file of its own" if model is None else f"{model.name!r} holds no such head"
        raise VerifierError(
            f"verifier {name!r} needs a homography head in the model file, and this model {held}; "
            f"use a model imported with its head, or one of: {', '.join(working)}"
        )
    return METHODS[name].build(model)
