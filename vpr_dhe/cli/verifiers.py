"""`vpr-dhe verifiers`: what can check the geometry of candidates."""

NAME = "verifiers"


def run() -> None:
    """List the verifiers, and what each of them needs."""
    from vpr_dhe.report.tables.text import text_table
    from vpr_dhe.verification.estimators.registry import METHODS
    from vpr_dhe.verification.names import NO_VERIFIER

    rows = [[name, method.needs.value, method.description] for name, method in METHODS.items()]
    nothing = [NO_VERIFIER, "any model", "retrieval without verification"]
    print(text_table(["verifier", "needs", "what it is"], [*rows, nothing]))
