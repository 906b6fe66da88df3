"""Table of the known verifiers."""

from vpr_dhe.report.tables.text import text_table
from vpr_dhe.verification.estimators.registry import FAMILIES, METHODS
from vpr_dhe.verification.names import NO_VERIFIER


def verifiers_table() -> str:
    """Table of all verifiers with their requirements, families of them, and of `none`."""
    methods = METHODS | {f"{prefix}NAME": method_of("NAME") for prefix, method_of in FAMILIES.items()}
    rows = [[name, method.needs.value, method.description] for name, method in methods.items()]
    nothing = [NO_VERIFIER, "any model", "retrieval without verification"]
    return text_table(["verifier", "needs", "description"], [*rows, nothing])
