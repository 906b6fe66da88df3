"""Table of the known verifiers."""

from vpr_dhe.report.tables.text import text_table
from vpr_dhe.verification.estimators.registry import ESTIMATORS, FAMILIES
from vpr_dhe.verification.names import NO_VERIFIER


def verifiers_table() -> str:
    """Table of all verifiers with their requirements, families of them, and of `none`."""
    specs = ESTIMATORS | {f"{prefix}NAME": spec for prefix, spec in FAMILIES.items()}
    rows = [[name, spec.needs.value, spec.description] for name, spec in specs.items()]
    nothing = [NO_VERIFIER, "any model", "retrieval without verification"]
    return text_table(["verifier", "needs", "description"], [*rows, nothing])
