"""`vpr-dhe import-weights`: model or network file from published checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_files, one_of
from vpr_dhe.models.importers import FAMILIES, NETWORKS

NAME = "import-weights"
KINDS = (*FAMILIES, *NETWORKS)
EXAMPLES = """
vpr-dhe import-weights ResNet50_512_cosplace.pth --out cosplace.safetensors
vpr-dhe import-weights backbone.pth head.pth --kind dhe-vpr --out dhe-vpr.safetensors
vpr-dhe import-weights IHN.pth --kind ihn --out ihn.safetensors
"""


def run(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Checkpoints, in any order.", callback=existing_files)
    ],
    out: Annotated[Path, typer.Option(help="Model or network file to write, ending in .safetensors.")],
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(KINDS),
            help="Family of the checkpoints. [found from the tensors]",
            show_default=False,
            callback=one_of("kind", KINDS),
            autocompletion=lambda incomplete: [name for name in KINDS if name.startswith(incomplete)],
        ),
    ] = None,
) -> None:
    """Convert published checkpoints into a model file, or a network file for --weights; only tensors are read."""
    from vpr_dhe.models.importers import import_checkpoints
    from vpr_dhe.models.weights_file import require_weights_path

    require_weights_path(out)
    model = import_checkpoints(kind, files)
    model.save(out)
    print(f"{out}: {model.name}, {sum(tensor.numel() for tensor in model.tensors.values()):,} parameters")
