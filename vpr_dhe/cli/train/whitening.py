"""`vpr-dhe train whitening`: whitening of a trained network's descriptor."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_training_data
from vpr_dhe.cli.shared.options import DeviceOption, pick_device
from vpr_dhe.cli.shared.progress import progress_bar
from vpr_dhe.cli.train.options import ResultOptions
from vpr_dhe.runtime.choices import AUTO

NAME = "whitening"
EXAMPLES = """
vpr-dhe train whitening model.safetensors photos --out whitened.safetensors
"""


def run(
    model: Annotated[Path, typer.Argument(help="Model file of a network with the aggregator gem.")],
    data: Annotated[
        list[str],
        typer.Argument(
            help="Folders of photos or place data sets; synthetic-town for generated streets.",
            callback=existing_training_data,
        ),
    ],
    result: ResultOptions,
    aggregator: Annotated[
        str, typer.Option(help="Aggregator: gem-whitened or gem-2-bands-whitened.")
    ] = "gem-2-bands-whitened",
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs of views to learn from.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pairs.")] = 0,
    device: DeviceOption = AUTO,
) -> None:
    """Whiten the descriptor of a trained network, which helps most after training on few images."""
    import torch

    from vpr_dhe.models.model_file import load_model
    from vpr_dhe.models.weights_file import require_weights_path
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.whitening import WhiteningSettings, whiten

    require_weights_path(result.out)
    start = load_model(model)
    source = open_training_data(data, start.preprocessing.size).warps
    settings = WhiteningSettings(aggregator, pairs, seed=seed)
    with progress_bar(pairs, "views", "pair") as bar:
        whitened = whiten(start, source, settings, torch.device(pick_device(device)), progress=bar.update)
    whitened = replace(whitened, name=result.name or start.name, licence=result.licence or start.licence)
    (whitened.in_half_precision() if result.half else whitened).save(result.out)
    print(f"{result.out}: {whitened.name}, learned from {pairs} pairs")
