"""Names of verifiers, importable without torch."""

from vpr_dhe.errors import VerifierError
from vpr_dhe.runtime.text import did_you_mean

DEFAULT_VERIFIER = "magsac"

NO_VERIFIER = "none"
"""Retrieval without verification; no estimator may have this name."""

VERIFIERS = (
    "magsac",
    "ransac",
    "accurate",
    "poselib",
    "kornia-ransac",
    "dhe",
    "dhe-lite",
    "ransac-flow",
    "weak-alignment",
    "weak-alignment-pseudo",
    "weak-descriptor",
    "iterative",
    "alto",
    "sshnet",
    "sshnet-d",
)
"""Verifiers of the registry, in its order."""


def require_verifier(name: str) -> None:
    """Check the name of a verifier, or of none.

    Raises:
        VerifierError: if it is unknown.
    """
    available = [*VERIFIERS, NO_VERIFIER]
    if name not in available:
        raise VerifierError(
            f"unknown verifier {name!r}{did_you_mean(name, available)}; available: {', '.join(available)}"
        )
