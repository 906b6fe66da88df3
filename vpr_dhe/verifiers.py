"""Verifiers and aligners by the name of their estimator."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from vpr_dhe.estimators import NONE, Equipment, build_estimator
from vpr_dhe.estimators.base import View, match_by_grid
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import Image, StartProgress, Verification, without_progress
from vpr_dhe.verification import Verifier, align


def build_verifier(name: str, at_hand: Equipment) -> Verifier | None:
    """Build a verifier by the name of its estimator; `none` is None."""
    return None if name == NONE else Verifier(build_estimator(name, at_hand))


def build_verifiers(names: Iterable[str], at_hand: Equipment) -> dict[str, Verifier]:
    """Build several verifiers, by name; `none`, which every evaluation measures anyway, is left out."""
    built = {name: build_verifier(name, at_hand) for name in names}
    return {name: verifier for name, verifier in built.items() if verifier is not None}


def build_aligner(
    name: str,
    model: str | None = None,
    networks: Mapping[str, NetworkFile] | None = None,
    device: str = "cpu",
    *,
    start_progress: StartProgress = without_progress,
    max_seconds: float | None = None,
) -> Callable[[Image, Image], Verification]:
    """Build a function that aligns two images: by sparse keypoints, or by dense features if a model is named.

    A method that takes long tells `start_progress` of each pair, and gives up after `max_seconds` what is not done.

    Raises:
        VerifierError: if the method is unknown, needs a head or a network that is not given, or cannot stop early.
    """
    extractor = None if model is None else load_extractor(model, device)
    at_hand = Equipment(extractor, networks or {}, device, start_progress, max_seconds)
    verifier = Verifier(build_estimator(name, at_hand))
    return partial(align, verifier=verifier) if extractor is None else partial(_align_by_features, extractor, verifier)


def _align_by_features(extractor: Extractor, verifier: Verifier, query: Image, candidate: Image) -> Verification:
    described, other = extractor.extract([query])[0], extractor.extract([candidate])[0]
    matches_of = match_by_grid(described, other.local_map[None], extractor.spec)
    view = View(other.frame, lambda: candidate, lambda: other, partial(matches_of, 0))
    return verifier.verify(View(described.frame, lambda: query, lambda: described), [view])[0]
