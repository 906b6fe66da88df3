"""`vpr-dhe verifiers`: what can check the geometry of candidates."""

NAME = "verifiers"


def run() -> None:
    """List the verifiers, and what each of them needs."""
    from vpr_dhe.estimators import METHODS, NONE
    from vpr_dhe.report.tables import text_table

    rows = [[name, method.needs.value, method.description] for name, method in METHODS.items()]
    nothing = [NONE, "any model", "retrieval without verification"]
    print(text_table(["verifier", "needs", "what it is"], [*rows, nothing]))
