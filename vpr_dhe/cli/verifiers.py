"""`vpr-dhe verifiers`: table of the known verifiers."""

NAME = "verifiers"
EXAMPLES = """
vpr-dhe verifiers
"""


def run() -> None:
    """List the verifiers and their requirements."""
    from vpr_dhe.report.tables.verifiers import verifiers_table

    print(verifiers_table())
