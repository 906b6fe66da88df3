"""A stage's run as the command line shows it."""

from typing import TYPE_CHECKING

import typer

from vpr_dhe.cli.common import progress_bar, say
from vpr_dhe.cli.train.options import LoopOptions

if TYPE_CHECKING:
    from vpr_dhe.training.stage import Stage


def train_stage(stage: "Stage", loop: LoopOptions, where: str) -> None:
    """Train on a device, and say where the result is; Ctrl-C leaves a run that can be continued."""
    from vpr_dhe.training.loop import train

    with progress_bar(loop.steps, "training", "step") as bar:
        try:
            result = train(stage, loop.settings(on_cpu=where == "cpu"), loop.out, progress=bar.update)
        except KeyboardInterrupt:
            say(f"interrupted; {loop.out} keeps the last saved state, and the same command goes on from there")
            raise typer.Exit(1) from None
    if not result.finished:
        say(f"step {result.step} of {loop.steps}; the same command goes on from there")
    if result.best_score is not None:
        print(f"{result.best_model}: the best model so far, {result.best_score:.4g} on held-out data")
