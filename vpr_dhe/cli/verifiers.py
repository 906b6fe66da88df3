"""`vpr-dhe verifiers`: table of the known verifiers."""

NAME = "verifiers"
EXAMPLES = """
vpr-dhe verifiers
"""


def run() -> None:
    """List the verifiers and their requirements."""
    from vpr_dhe.report.tables.text import text_table
    from vpr_dhe.verification.estimators.registry import ESTIMATORS, FAMILIES
    from vpr_dhe.verification.names import NO_VERIFIER

    specs = ESTIMATORS | {f"{prefix}NAME": spec for prefix, spec in FAMILIES.items()}
    rows = [[name, spec.needs.value, spec.description] for name, spec in specs.items()]
    nothing = [NO_VERIFIER, "any model", "retrieval without verification"]
    print(text_table(["verifier", "needs", "description"], [*rows, nothing]))
