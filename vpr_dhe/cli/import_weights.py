"""`vpr-dhe import-weights`: convert published checkpoints into a model file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NAME = "import-weights"


class Kind(StrEnum):
    """Published checkpoints that can be converted."""

    dhe_vpr = "dhe-vpr"
    cct = "cct"


def run(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Checkpoints, in any order.")],
    kind: Annotated[Kind, typer.Option(help="What the files are.")],
    out: Annotated[Path, typer.Option(help="Model file to write, ending in .safetensors.")],
) -> None:
    """Convert published checkpoints; nothing but tensors is ever read from them."""
    from vpr_dhe.models.importers import import_checkpoints
    from vpr_dhe.models.weights_file import require_weights_path

    require_weights_path(out)
    model = import_checkpoints(kind.value, files)
    model.save(out)
    print(f"{out}: {model.name}, {sum(tensor.numel() for tensor in model.tensors.values()):,} parameters")
