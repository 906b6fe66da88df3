"""`vpr-dhe export`: networks of a model as ONNX files."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import known_model
from vpr_dhe.cli.shared.options import complete_model
from vpr_dhe.runtime.choices import ExportPart

NAME = "export"
EXAMPLES = """
vpr-dhe export lite-vlad --out lite-vlad-onnx
"""


def run(
    model: Annotated[
        str,
        typer.Argument(
            help="Model name or file; see `vpr-dhe models`.", callback=known_model, autocompletion=complete_model
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="New folder for the ONNX files and their description.")],
    part: Annotated[ExportPart, typer.Option(help="Extractor, homography head, or all parts of the model.")] = "all",
) -> None:
    """Export a model to ONNX and compare its outputs with torch."""
    from vpr_dhe.export.exporting import export_model

    exported = export_model(model, out, part)
    for written in exported.parts.values():
        name = next(iter(written.files))
        megabytes = sum((out / file).stat().st_size for file in written.files) / 1e6
        print(f"{out / name}: {megabytes:.1f} MB, differs from torch by {written.relative_difference:.1e}")
