"""`vpr-dhe verifiers`: what can check the geometry of candidates."""

NAME = "verifiers"


def run() -> None:
    """List the verifiers, and which of them need a head in the model file."""
    from vpr_dhe.estimators import METHODS, NONE
    from vpr_dhe.report.tables import text_table

    rows = [
        [name, "any" if method.works_with_any_model else f"with a {name} head", method.description]
        for name, method in METHODS.items()
    ]
    print(text_table(["verifier", "model", "what it is"], [*rows, [NONE, "any", "retrieval without verification"]]))
