"""Run of a stage with progress and messages."""

from typing import TYPE_CHECKING

import typer

from vpr_dhe.cli.common import print_stderr, progress_bar
from vpr_dhe.cli.train.options import LoopOptions

if TYPE_CHECKING:
    from vpr_dhe.training.stage import Stage


def train_stage(stage: "Stage", loop: LoopOptions, device: str) -> None:
    """Train a stage on a device and print the path of its model; Ctrl-C leaves a run that can be continued."""
    from vpr_dhe.training.loop import train

    with progress_bar(loop.steps, "training", "step") as bar:
        try:
            result = train(stage, loop.settings(on_cpu=device == "cpu"), loop.out, progress=bar.update)
        except KeyboardInterrupt:
            print_stderr(f"interrupted: {loop.out} holds the last saved state; run the command again to continue")
            raise typer.Exit(1) from None
    if not result.finished:
        print_stderr(f"stopped at step {result.step} of {loop.steps}; run the command again to continue")
    if result.best_score is not None:
        print(f"{result.best_model}: the best model so far, {result.best_score:.4g} on held-out data")
