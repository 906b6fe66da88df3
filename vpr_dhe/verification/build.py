"""Build estimators and verifiers by name."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from vpr_dhe.errors import VerifierError
from vpr_dhe.models.exported_model import HEAD, ExportedModel
from vpr_dhe.models.published import PUBLISHED_NETWORKS
from vpr_dhe.models.weights_file import tensors_digest
from vpr_dhe.verification.estimators.base import HomographyEstimator
from vpr_dhe.verification.estimators.registry import ESTIMATORS, EstimatorSpec, Needs, find_estimator
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import NO_VERIFIER, require_verifier
from vpr_dhe.verification.verifier import Verifier


def build_estimator(name: str, resources: Resources | None = None) -> HomographyEstimator:
    """Build an estimator by name.

    Raises:
        VerifierError: if the name is unknown, or the resources lack what the estimator needs.
        ModelError: if a head or a network file belongs to another estimator.
        MissingExtraError, DownloadError, MatcherError: if a matcher of another package is not installed, its weights
            cannot be downloaded, or it cannot be built.
    """
    resources = resources or Resources()
    spec = find_estimator(name)
    if spec is None:
        require_verifier(name)
        raise VerifierError(f"{name!r} estimates no homography; use one of: {', '.join(ESTIMATORS)}")
    _require(name, spec, resources)
    if resources.max_seconds is not None and not spec.stops_early:
        working = _names_where(lambda other: other.stops_early)
        raise VerifierError(f"{name} has no time limit; leave out --max-seconds, or use one of: {working}")
    if resources.precision == "int8" and not spec.in_8_bits:
        working = _names_where(lambda other: other.in_8_bits)
        raise VerifierError(f"{name} has no 8-bit integers; use --precision fp32 or bf16, or one of: {working}")
    return spec.build(name, resources)


def require_used(resources: Resources, names: Iterable[str]) -> None:
    """Raise VerifierError if a network file is for none of these methods, since it would have no effect."""
    unused = sorted(resources.networks.keys() - set(names))
    if unused:
        raise VerifierError(
            f"--weights gives a network for {unused[0]!r}, and the method is {' and '.join(names)}; choose "
            f"{unused[0]!r}, or leave out --weights"
        )


def _names_where(suits: Callable[[EstimatorSpec], bool]) -> str:
    return ", ".join(name for name, spec in ESTIMATORS.items() if suits(spec))


def learned_fingerprint(name: str, resources: Resources) -> str | None:
    """SHA-256 of the weights an estimator would be built with, or of the versions of their packages; None if none."""
    spec, model = find_estimator(name), resources.model
    if spec is not None and spec.packages:
        return _versions_digest(spec.packages)
    if name in resources.networks:
        return tensors_digest(resources.networks[name].tensors)
    if spec is None or spec.needs is not Needs.head or model is None:
        return None
    # Another runtime computes slightly different numbers, so an export counts as different weights.
    if isinstance(model, ExportedModel):
        return next(iter(model.parts[HEAD].files.values()))
    return tensors_digest(model.part(HEAD))


def _versions_digest(packages: Sequence[str]) -> str | None:
    """SHA-256 of the versions of packages; None if one is not installed."""
    try:
        versions = [f"{package} {version(package)}" for package in packages]
    except PackageNotFoundError:
        return None
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()


def _require(name: str, spec: EstimatorSpec, resources: Resources) -> None:
    needs, model = spec.needs, resources.model
    if needs is Needs.head and (model is None or model.architecture.head != name):
        working = _names_where(lambda other: other.needs is Needs.matches)
        held = "has no model file" if model is None else f"{model.name!r} holds no such head"
        raise VerifierError(
            f"verifier {name!r} needs a homography head in the model file, and this model {held}; "
            f"use a model imported with its head, or one of: {working}"
        )
    if needs is Needs.network and name not in resources.networks:
        given = ", ".join(resources.networks) or "none"
        published = next((one.name for one in PUBLISHED_NETWORKS.values() if one.method == name), None)
        imported = (
            "" if published is None else f", or a published one (`vpr-dhe models {published}` says how to get it)"
        )
        raise VerifierError(
            f"verifier {name!r} needs its own network, and those given are for: {given}; "
            f"give --weights FILE, made by `vpr-dhe train {name}`{imported}"
        )


def build_verifier(name: str, resources: Resources | None = None) -> Verifier | None:
    """Build a verifier by the name of its estimator; None for `none`."""
    return None if name == NO_VERIFIER else Verifier(build_estimator(name, resources))


def build_verifiers(names: Iterable[str], resources: Resources) -> dict[str, Verifier]:
    """Build several verifiers by name; `none`, which every evaluation measures anyway, is left out."""
    built = {name: build_verifier(name, resources) for name in names}
    return {name: verifier for name, verifier in built.items() if verifier is not None}
