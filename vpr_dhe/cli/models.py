"""`vpr-dhe models`: table of the known models."""

NAME = "models"
EXAMPLES = """
vpr-dhe models
"""


def run() -> None:
    """List the models and which of them work offline."""
    from vpr_dhe.models.catalogue import CATALOGUE
    from vpr_dhe.report.tables.text import text_table

    rows = [[entry.name, "yes" if entry.works_offline else "no", entry.description] for entry in CATALOGUE]
    print(text_table(["model", "offline", "description"], rows))
