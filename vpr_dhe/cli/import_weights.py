"""`vpr-dhe import-weights`: model or network file from published checkpoints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_files

NAME = "import-weights"
EXAMPLES = """
vpr-dhe import-weights ResNet50_512_cosplace.pth --out cosplace.safetensors
vpr-dhe import-weights backbone.pth head.pth --kind dhe-vpr --out dhe-vpr.safetensors
vpr-dhe import-weights IHN.pth --kind ihn --out ihn.safetensors
"""


class Kind(StrEnum):
    """Families of published checkpoints."""

    dhe_vpr = "dhe-vpr"
    cct = "cct"
    cosplace = "cosplace"
    eigenplaces = "eigenplaces"
    mixvpr = "mixvpr"
    megaloc = "megaloc"
    salad = "salad"
    cliquemining = "cliquemining"
    boq = "boq"
    imagevpr = "imagevpr"
    selavprpp = "selavprpp"
    fol = "fol"
    edtformer = "edtformer"
    moco = "moco"
    ransac_flow = "ransac-flow"
    ihn = "ihn"


def run(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Checkpoints, in any order.", callback=existing_files)
    ],
    out: Annotated[Path, typer.Option(help="Model or network file to write, ending in .safetensors.")],
    kind: Annotated[
        Kind | None, typer.Option(help="Family of the checkpoints. [found from the tensors]", show_default=False)
    ] = None,
) -> None:
    """Convert published checkpoints into a model file, or a network file for --weights; only tensors are read."""
    from vpr_dhe.models.importers import import_checkpoints
    from vpr_dhe.models.weights_file import require_weights_path

    require_weights_path(out)
    model = import_checkpoints(None if kind is None else kind.value, files)
    model.save(out)
    print(f"{out}: {model.name}, {sum(tensor.numel() for tensor in model.tensors.values()):,} parameters")
