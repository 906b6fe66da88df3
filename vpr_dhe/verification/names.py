"""Names of verifiers, importable without torch."""

import ast
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from vpr_dhe.errors import MissingExtraError, VerifierError
from vpr_dhe.runtime.extras import missing_extra
from vpr_dhe.runtime.text import did_you_mean
from vpr_dhe.verification.estimators.registry import ESTIMATORS, VISMATCH_PREFIX

MAGSAC = "magsac"
DEFAULT_VERIFIER = MAGSAC

NO_VERIFIER = "none"
"""Retrieval without verification; no estimator may have this name."""

DHE, DHE_LITE = "dhe", "dhe-lite"
"""Verifiers whose head is in a model file, under the same name."""

AUTOMATIC = "auto"
"""Method of `align` and `evaluate-pairs` that takes the best homography of several; no estimator may have this name."""


def require_verifier(name: str) -> None:
    """Check the name of a verifier, or of none.

    Raises:
        VerifierError: if it is unknown.
        MissingExtraError: if it is a matcher of vismatch, which is not installed.
    """
    if name.startswith(VISMATCH_PREFIX):
        require_vismatch(name.removeprefix(VISMATCH_PREFIX), vismatch_names())
        return
    available = [*ESTIMATORS, NO_VERIFIER]
    if name not in available:
        raise VerifierError(
            f"unknown verifier {name!r}{did_you_mean(name, [*available, VISMATCH_PREFIX])}; available: "
            f"{', '.join(available)}, {VISMATCH_PREFIX}NAME"
        )


def require_aligner(name: str) -> None:
    """Check the name of a method of `align`.

    Raises:
        VerifierError, MissingExtraError: as for `require_verifier`.
    """
    if name != AUTOMATIC:
        require_verifier(name)


def require_vismatch(name: str, available: Sequence[str]) -> None:
    """Check the name of a matcher of vismatch; without a list of what is available, any is accepted.

    Raises:
        VerifierError: if it is unknown.
    """
    if available and name not in available:
        raise VerifierError(
            f"vismatch has no matcher {name!r}{did_you_mean(name, available)}; available: {', '.join(available)}"
        )


def vismatch_names() -> tuple[str, ...]:
    """Names of the matchers of vismatch, read from its source, because importing it takes seconds; none if not there.

    Raises:
        MissingExtraError: if vismatch is not installed.
    """
    spec = find_spec("vismatch")
    if spec is None:
        raise missing_extra("matchers", "there is no package vismatch")
    try:
        module = ast.parse(Path(spec.origin or "").read_bytes())
        return next(tuple(ast.literal_eval(node.value)) for node in module.body if _is_list_of_names(node))
    except (OSError, SyntaxError, StopIteration, ValueError):
        return ()


def _is_list_of_names(node: ast.stmt) -> TypeGuard[ast.Assign]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "available_models" for target in targets)


def aligners_beginning_with(text: str) -> list[str]:
    """Names of methods of `align` that complete a text."""
    return [*([AUTOMATIC] if AUTOMATIC.startswith(text) else []), *verifiers_beginning_with(text)]


def verifiers_beginning_with(text: str) -> list[str]:
    """Names of verifiers, and of none, that complete a text; those of vismatch once their prefix is there."""
    names = [*ESTIMATORS, NO_VERIFIER, VISMATCH_PREFIX]
    if text.startswith(VISMATCH_PREFIX):
        try:
            names = [f"{VISMATCH_PREFIX}{name}" for name in vismatch_names()]
        except MissingExtraError:
            return []
    return [name for name in names if name.startswith(text)]
