"""Homography estimators and their registry: a new method is one new file and one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from vpr_dhe.errors import VerifierError
from vpr_dhe.estimators import dhe, dhe_lite
from vpr_dhe.estimators.alto import AltoEstimator
from vpr_dhe.estimators.base import HomographyEstimator
from vpr_dhe.estimators.iterative import IterativeEstimator
from vpr_dhe.estimators.ransac_flow import RansacFlowEstimator
from vpr_dhe.estimators.robust import KorniaEstimator, OpenCvEstimator, PoseLibEstimator
from vpr_dhe.estimators.sshnet import DistilledSshnetEstimator, SshnetEstimator
from vpr_dhe.estimators.weak_alignment.estimator import WeakAlignmentEstimator
from vpr_dhe.estimators.weak_alignment.learning import WeakAlignmentSettings
from vpr_dhe.estimators.weak_descriptor import WeakDescriptorEstimator
from vpr_dhe.features.base import Extractor
from vpr_dhe.models.exported_model import HEAD, ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.models.weights_file import tensors_digest
from vpr_dhe.records import StartProgress, without_progress

DEFAULT = "magsac"
# Not an estimator: retrieval without verification.
NONE = "none"


class Needs(Enum):
    """What a method cannot do without, as `vpr-dhe verifiers` says it."""

    matches = "any model"
    head = "a model with its head"
    images = "the images"
    network = "the images, and --weights"


@dataclass(frozen=True)
class Equipment:
    """What is at hand to build methods from: the extractor of the index, networks by method, and where they run.

    Methods that take long for a pair tell `start_progress` of it, and those that can stop early do so after
    `max_seconds`.
    """

    extractor: Extractor | None = None
    networks: Mapping[str, NetworkFile] = field(default_factory=dict)
    device: str = "cpu"
    start_progress: StartProgress = without_progress
    max_seconds: float | None = None

    @property
    def model(self) -> ModelFile | ExportedModel | None:
        """The model file of the extractor, or the export it is, where there is one."""
        return None if self.extractor is None else self.extractor.model_file


@dataclass(frozen=True)
class Method:
    """One way to estimate homographies.

    `head` names the head that it needs, if its need is one. `usual_rerank` is how many candidates a user would wait
    for on a CPU, where that is few. `stops_early` tells whether it heeds `Equipment.max_seconds`.
    """

    build: Callable[[Equipment], HomographyEstimator]
    description: str
    needs: Needs = Needs.matches
    head: str | None = None
    usual_rerank: int | None = None
    stops_early: bool = False


def _weak_alignment(at_hand: Equipment, *, pseudo_siamese: bool) -> WeakAlignmentEstimator:
    settings = WeakAlignmentSettings(pseudo_siamese=pseudo_siamese, max_seconds=at_hand.max_seconds)
    return WeakAlignmentEstimator(settings, device=at_hand.device, start_progress=at_hand.start_progress)


METHODS: dict[str, Method] = {
    "magsac": Method(lambda _: OpenCvEstimator("magsac"), "MAGSAC++ (OpenCV USAC); the default"),
    "ransac": Method(lambda _: OpenCvEstimator("ransac"), "classic RANSAC (OpenCV)"),
    "accurate": Method(lambda _: OpenCvEstimator("accurate"), "graph-cut RANSAC (OpenCV USAC_ACCURATE)"),
    "poselib": Method(lambda _: PoseLibEstimator(), "LO-RANSAC with non-linear refinement (PoseLib)"),
    "kornia-ransac": Method(lambda _: KorniaEstimator(), "RANSAC in torch (kornia)"),
    "dhe": Method(
        lambda at_hand: dhe.DheEstimator.from_model(at_hand.model),
        "deep homography estimation (AAAI 2024), head in the model file",
        Needs.head,
        head=dhe.HEAD_NAME,
    ),
    "dhe-int8": Method(
        lambda at_hand: dhe.DheEstimator.from_model(at_hand.model, dhe.HeadPrecision.int8),
        "the same in 8-bit integers, on CPUs with AVX-512 VNNI; compare it with dhe on your data",
        Needs.head,
        head=dhe.HEAD_NAME,
    ),
    "dhe-lite": Method(
        lambda at_hand: dhe_lite.DheLiteEstimator.from_model(at_hand.model),
        "learned weights of matches, head in the model file",
        Needs.head,
        head=dhe_lite.HEAD_NAME,
    ),
    "ransac-flow": Method(
        lambda at_hand: RansacFlowEstimator.from_file(
            at_hand.networks["ransac-flow"], at_hand.extractor, at_hand.device
        ),
        "RANSAC-Flow (ECCV 2020): homographies from many scales, fine flow",
        Needs.network,
        usual_rerank=10,
    ),
    "weak-alignment": Method(
        partial(_weak_alignment, pseudo_siamese=False),
        "descriptor and homography learned on the one pair, roughly aligned (3DV 2018)",
        Needs.images,
        usual_rerank=3,
        stops_early=True,
    ),
    "weak-alignment-pseudo": Method(
        partial(_weak_alignment, pseudo_siamese=True),
        "the same for images of two sensors: a first layer for each",
        Needs.images,
        usual_rerank=3,
        stops_early=True,
    ),
    "weak-descriptor": Method(
        lambda at_hand: WeakDescriptorEstimator.from_file(at_hand.networks["weak-descriptor"], at_hand.device),
        "SIFT keypoints described by a network that was trained on aligned pairs; MAGSAC++",
        Needs.network,
    ),
    "iterative": Method(
        lambda at_hand: IterativeEstimator.from_file(at_hand.networks["iterative"], at_hand.device),
        "iterative deep homography estimation (IHN, CVPR 2022)",
        Needs.network,
    ),
    "alto": Method(
        lambda at_hand: AltoEstimator.from_file(at_hand.networks["alto"], at_hand.device),
        "registration learned without labels across modalities (AltO, NeurIPS 2024)",
        Needs.network,
    ),
    "sshnet": Method(
        lambda at_hand: SshnetEstimator.from_file(at_hand.networks["sshnet"], at_hand.device),
        "repaints one modality as the other, and registers (SSHNet, 2024)",
        Needs.network,
    ),
    "sshnet-d": Method(
        lambda at_hand: DistilledSshnetEstimator.from_file(at_hand.networks["sshnet-d"], at_hand.device),
        "registration distilled from sshnet",
        Needs.network,
    ),
}


def build_estimator(name: str, at_hand: Equipment = Equipment()) -> HomographyEstimator:
    """Build an estimator by name.

    Raises:
        VerifierError: if the name is unknown, or the method needs what is not at hand.
        ModelError: if a head or a network file is not the method's.
    """
    if name not in METHODS:
        raise VerifierError(f"unknown verifier {name!r}; available: {', '.join([*METHODS, NONE])}")
    _require(name, METHODS[name], at_hand)
    if at_hand.max_seconds is not None and not METHODS[name].stops_early:
        working = ", ".join(other for other, method in METHODS.items() if method.stops_early)
        raise VerifierError(f"{name} knows no limit of time; leave out --max-seconds, or use one of: {working}")
    return METHODS[name].build(at_hand)


def learned_fingerprint(name: str, at_hand: Equipment) -> str | None:
    """SHA-256 over the weights that a method would be built with; None where it has none."""
    needs, model = METHODS[name].needs if name in METHODS else None, at_hand.model
    if needs is Needs.network:
        return tensors_digest(at_hand.networks[name].tensors)
    if needs is not Needs.head or model is None:
        return None
    # What another runtime computes differs in digits, so an export counts as other weights.
    if isinstance(model, ExportedModel):
        return next(iter(model.parts[HEAD].files.values()))
    return tensors_digest(model.part(HEAD))


def _require(name: str, method: Method, at_hand: Equipment) -> None:
    needs, model = method.needs, at_hand.model
    if needs is Needs.head and (model is None or model.architecture.head != method.head):
        working = [other for other, method in METHODS.items() if method.needs is Needs.matches]
        held = "has no file of its own" if model is None else f"{model.name!r} holds no such head"
        raise VerifierError(
            f"verifier {name!r} needs a homography head in the model file, and this model {held}; "
            f"use a model imported with its head, or one of: {', '.join(working)}"
        )
    if needs is Needs.network and name not in at_hand.networks:
        given = ", ".join(at_hand.networks) or "none"
        raise VerifierError(
            f"verifier {name!r} needs a network of its own, and those given are for: {given}; "
            f"give --weights FILE, which `vpr-dhe train {name}` makes"
        )
