"""Extractor and verifier for an index, by name."""

from collections.abc import Iterable
from dataclasses import dataclass

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.place_index import PlaceIndex, require_same_features
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.models.network_file import load_networks
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.choices import Adapt, Precision, RankBy, RankByChoice, Runtime, features_precision, resolve_rank_by
from vpr_dhe.verification.build import build_verifier, require_used
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier


@dataclass(frozen=True)
class Setup:
    """Extractor and verifier for an index, the order of candidates, and the conditions of a calibration for them."""

    extractor: Extractor
    verifier: Verifier | None
    rank_by: RankBy
    conditions: Conditions


def load_setup(
    index: PlaceIndex,
    *,
    verifier: str,
    rerank: int,
    rank_by: RankByChoice,
    adapt: Adapt,
    stop_early: float | None,
    device: str,
    model: str | None,
    weights: Iterable[StrPath],
    runtime: Runtime,
    precision: Precision,
) -> Setup:
    """Load the model of an index and build a verifier by name; arguments as for `Localizer.open`.

    Raises:
        IndexFormatError: if `model` is another model than that of the index.
        ModelError, VerifierError: if model or verifier are unknown, or do not fit each other.
    """
    extractor = load_extractor(
        model or index.spec.model, device, precision=features_precision(precision), runtime=runtime
    )
    require_same_features(index.spec, extractor.spec)
    resources = Resources(extractor, load_networks(weights), device, precision)
    require_used(resources, [verifier])
    built = build_verifier(verifier, resources)
    order = resolve_rank_by(rank_by, index.manifest.settings.rank_by)
    conditions = Conditions.of(index.manifest, verifier, rerank, resources, order, adapt=adapt, stop_early=stop_early)
    return Setup(extractor, built, order, conditions)
