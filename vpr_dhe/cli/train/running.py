"""Run of a stage with progress and messages."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vpr_dhe.cli.shared.progress import print_stderr, progress_bar
from vpr_dhe.cli.train.options import LoopOptions, ResultOptions

if TYPE_CHECKING:
    from vpr_dhe.records import StartProgress
    from vpr_dhe.training.stage import Stage


def train_stage(stage: "Stage", loop: LoopOptions, device: str) -> None:
    """Train a stage on a device and print the path of its model."""
    from vpr_dhe.training.loop import train
    from vpr_dhe.training.preparation import Preparation

    with progress_bar(loop.steps, "training", "step") as bar, _bars_of_preparation() as start:
        preparation = Preparation(loop.deadline, start)
        settings = loop.settings(on_cpu=device == "cpu")
        result = train(stage, settings, loop.out, progress=bar.update, preparation=preparation)
    if not result.finished:
        print_stderr(f"stopped at step {result.step} of {loop.steps}; run the command again to continue")
    if result.best_score is not None:
        print(f"{result.best_model}: the best model so far, {result.best_score:.4g} on held-out data")


@contextmanager
def _bars_of_preparation() -> Iterator["StartProgress"]:
    """Yield a function that shows a bar below that of the training, in place of the previous one."""
    with ExitStack() as stack:

        def start(items: str, total: int) -> Callable[[int], object]:
            stack.close()
            return stack.enter_context(progress_bar(total, items, "item", leave=False)).update

        yield start


def interruptible(run: Callable[..., None]) -> Callable[..., None]:
    """Make the command of a stage count its time from now on, and say upon Ctrl-C what is kept."""

    @functools.wraps(run)
    def call(**options: object) -> None:
        made = options.get("loop") or options["result"]
        assert isinstance(made, (LoopOptions, ResultOptions)), "a stage has a loop or a result"
        if isinstance(made, LoopOptions):
            _ = made.deadline  # its time begins
        try:
            run(**options)
        except KeyboardInterrupt:
            print_stderr(f"interrupted: {_kept(made.out)}")
            raise typer.Exit(1) from None

    return call


def _kept(out: Path) -> str:
    """Sentence about what an interrupted run has left and what to do."""
    from vpr_dhe.training.run_folder import saved_step
    from vpr_dhe.training.vlad.partial_results import partial_folder

    step, partial = saved_step(out), partial_folder(out)
    if step is not None:
        return f"{out} holds the state after step {step}; run the command again to continue"
    if any(partial.glob("*.npz")):
        return f"{partial} holds what was finished; run the command again to continue"
    return "nothing is kept yet; run the command again to start from the beginning"
