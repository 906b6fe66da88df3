"""Training loop of all stages, on one or more devices, with logging, validation and resumption."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from vpr_dhe.errors import BadInputError, TimeLimitError
from vpr_dhe.records import Progress, StrPath
from vpr_dhe.runtime.choices import FP32, TrainingPrecision
from vpr_dhe.runtime.extras import require_extra
from vpr_dhe.training.deadline import Deadline
from vpr_dhe.training.devices import to_device
from vpr_dhe.training.loading import load_batches
from vpr_dhe.training.preparation import Preparation
from vpr_dhe.training.run_folder import Log, RunFolder, TrainingState
from vpr_dhe.training.stage import Stage, Validation

_LONGEST_WAIT = timedelta(days=1)
_OTHER_TRAINING = "this process has trained on another device or in another precision before; train in a new process"

VALIDATION = "validation/"
"""Prefix of the names of validation scalars in the logs."""


@dataclass(frozen=True)
class LoopSettings:
    """Duration and resources of training; only `seed`, `precision` and `max_gradient_norm` affect the result of a step.

    Args:
        steps: total number of steps.
        seed: seed of all randomness in a step except the data.
        validate_every: steps between validations; the last step is validated too.
        save_every: steps between saved states; a killed run loses at most this many.
        log_every: steps averaged in one line of the logs.
        max_gradient_norm: maximum gradient norm, for each part of the stage separately.
        precision: precision of matrix products; "bf16" and "fp16" are mixed precision.
        on_cpu: whether to ignore GPUs.
        workers: processes that prepare batches; 0 means the training process.
        max_minutes: time, including preparation, after which the run saves its state and ends, to be resumed later;
            None is unlimited.
    """

    steps: int
    seed: int = 0
    validate_every: int = 1000
    save_every: int = 500
    log_every: int = 50
    max_gradient_norm: float = 1.0
    precision: TrainingPrecision = FP32
    on_cpu: bool = False
    workers: int = 0
    max_minutes: float | None = None


@dataclass(frozen=True)
class TrainingResult:
    """State of a run; `best_score` is the score of the model in `best_model`, or None before the first validation."""

    step: int
    finished: bool
    best_score: float | None
    best_model: Path


def train(
    stage: Stage,
    settings: LoopSettings,
    folder: StrPath,
    *,
    progress: Progress = lambda _: None,
    preparation: Preparation | None = None,
) -> TrainingResult:
    """Train a stage, from the start or from the saved state in `folder`.

    On a CPU, an interrupted and resumed run ends with bitwise the same weights as an uninterrupted one, because torch's
    random number generators are seeded at every step.

    Args:
        stage: stage in its state at step 0.
        settings: may differ from those of the original run, except for seed, precision and gradient norm.
        folder: a new folder, or that of a run of this stage.
        progress: called with the number of steps just done; the first call counts those of earlier runs.
        preparation: reports the preparation of data, and has the deadline of the run; by default, the time limit
            `settings.max_minutes` starts now.

    Raises:
        BadInputError: if the folder contains something else, or a run with other settings.
        TimeLimitError: if the time limit ended before the first step of this call.
        MissingExtraError: if the extra `train` is not installed.
    """
    loop = _Loop(stage, settings, Path(folder), preparation or Preparation(Deadline(settings.max_minutes)))
    try:
        return loop.run(progress)
    finally:
        loop.close()


def _accelerator(settings: LoopSettings, mixed_precision: str) -> Any:
    """Accelerator of this process, whose device and precision are those of its first training.

    Raises:
        BadInputError: if the process has trained on another device or in another precision before.
    """
    require_extra("train")
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    handlers = [
        # Some parts get no gradient in some phases of a stage.
        DistributedDataParallelKwargs(find_unused_parameters=True),
        # Other processes wait while the first one mines or validates.
        InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
    ]
    try:
        made = Accelerator(cpu=settings.on_cpu, mixed_precision=mixed_precision, kwargs_handlers=handlers)
    except ValueError as error:
        raise BadInputError(f"{_OTHER_TRAINING} ({error})") from error
    if (made.device.type == "cpu") != (settings.on_cpu or not torch.cuda.is_available()):
        raise BadInputError(_OTHER_TRAINING)
    return made


class _Loop:
    def __init__(self, stage: Stage, settings: LoopSettings, folder: Path, preparation: Preparation) -> None:
        self._stage, self._settings = stage, settings
        self._deadline, stage.preparation = preparation.deadline, preparation
        self._stopped: TimeLimitError | None = None
        # accelerate's name, which run folders store.
        self._mixed_precision = "no" if settings.precision == FP32 else settings.precision
        self._accelerator: Any = _accelerator(settings, self._mixed_precision)
        self._main: bool = self._accelerator.is_main_process
        self._run = self._open(folder)
        state = self._run.read_state()
        self._step = state.step if state else 0
        self._best = state.best_score if state else None
        self._validation_due = state.validation_due if state else False
        self._saved_step = self._first_step = self._step
        if state:
            stage.load_state_dict(state.weights)
        optimizer = stage.optimizer()
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._module, self._optimizer = self._accelerator.prepare(stage, optimizer)
        if state:
            self._optimizer.load_state_dict(state.optimizer)
            if self._accelerator.scaler is not None and state.scaler is not None:
                self._accelerator.scaler.load_state_dict(state.scaler)
        self._log = self._run.open_log(self._step) if self._main else None
        self._recent: dict[str, list[torch.Tensor]] = defaultdict(list)

    def _open(self, folder: Path) -> RunFolder:
        """Open the run folder, which the main process creates first."""
        facts = {
            **self._stage.facts,
            "processes": self._accelerator.num_processes,
            "loop_seed": self._settings.seed,
            "precision": self._mixed_precision,
            "max_gradient_norm": self._settings.max_gradient_norm,
        }
        with self._accelerator.main_process_first():
            return RunFolder(folder, facts, writes=self._main)

    def run(self, progress: Progress) -> TrainingResult:
        """Train until the last step or the time limit."""
        progress(self._step)
        if self._validation_due:
            self._validate()
            self._save()
        for batch in self._batches():
            self._train_on(batch)
            self._step += 1
            self._report()
            self._validation_due = self._is_due(self._settings.validate_every)
            if self._validation_due:
                self._validate()
            out_of_time = self._out_of_time()
            if out_of_time or self._is_due(self._settings.save_every):
                self._save()
            progress(1)
            if out_of_time:
                break
        if self._stopped and self._step == self._first_step:
            raise TimeLimitError(f"{self._stopped}, before the first step of this run: {self._kept}")
        finished = self._step >= self._settings.steps and not self._validation_due
        return TrainingResult(self._step, finished, self._best, self._run.best_model)

    @property
    def _kept(self) -> str:
        """Message about the state in the folder and the remedy."""
        state = f"holds the state after step {self._saved_step}" if self._saved_step else "holds nothing trained yet"
        return f"{self._run.folder} {state}; run the command again with a longer --max-minutes, or with less to prepare"

    def close(self) -> None:
        """Close the logs."""
        if self._log:
            self._log.close()

    def _batches(self) -> Iterator[Any]:
        """Yield batches from the current step; those of a round are loaded after its beginning."""
        process, processes = self._accelerator.process_index, self._accelerator.num_processes
        while self._step < self._settings.steps and not self._agreed(self._stopped is not None):
            end = self._settings.steps
            if length := self._stage.steps_per_round(processes):
                if self._step % length == 0 and not self._begin_round():
                    return
                end = min(end, self._step - self._step % length + length)
            steps = range(self._step, end)
            yield from load_batches(self._stage.batches, steps, process, processes, self._settings.workers)

    def _begin_round(self) -> bool:
        """Begin a round in the main process and share its state with the others; False if the time limit ended."""
        from accelerate.utils import broadcast_object_list

        if self._main:
            with self._preparing():
                self._stage.begin_round(self._step)
        if self._agreed(self._stopped is not None):
            if self._step != self._saved_step:
                self._save()
            return False
        if self._accelerator.num_processes > 1:
            chosen = [self._stage.get_extra_state()]
            broadcast_object_list(chosen)
            self._stage.set_extra_state(chosen[0])
        return True

    @contextmanager
    def _preparing(self) -> Iterator[None]:
        """Context without gradients that records the end of the time limit and saves the state on Ctrl-C."""
        self._stage.eval()
        try:
            with torch.no_grad():
                yield
        except TimeLimitError as error:
            self._stopped = error
        except KeyboardInterrupt:
            # Other processes would not save with this one.
            if self._step != self._saved_step and self._accelerator.num_processes == 1:
                self._save()
            raise

    def _train_on(self, batch: Any) -> None:
        self._prepare_step()
        self._optimizer.zero_grad()
        loss, scalars = self._module(to_device(batch, self._accelerator.device))
        self._accelerator.backward(loss)
        norm = self._clip_gradients()
        # A scaler skips steps with NaN gradients; without one, they would destroy the weights.
        if self._accelerator.scaler is not None or bool(torch.isfinite(norm)):
            self._optimizer.step()
        for name, value in {"loss": loss, "gradient_norm": norm, **scalars}.items():
            self._recent[name].append(torch.as_tensor(value).detach())

    def _clip_gradients(self) -> torch.Tensor:
        """Clip the gradient of each part, and return the total norm before clipping."""
        self._accelerator.unscale_gradients()
        max_norm = self._settings.max_gradient_norm
        norms = [clip_grad_norm_(part.parameters(), max_norm) for part in self._stage.gradient_parts()]
        return torch.stack(norms).norm()

    def _prepare_step(self) -> None:
        """Set learning rates and random seeds, which depend only on the step."""
        factor = self._stage.learning_rate_factor(self._step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        entropy = (self._settings.seed, self._step, self._accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._module.train()

    def _report(self) -> None:
        if not self._is_due(self._settings.log_every):
            return
        means = {name: float(torch.stack(values).double().mean()) for name, values in self._recent.items()}
        self._recent.clear()
        if self._log:
            rate = self._optimizer.param_groups[0]["lr"]
            self._log.write(self._step, {**means, "learning_rate": rate})

    def _validate(self) -> None:
        """Validate in the main process, and keep the model if it is the best so far."""
        if self._log:
            with self._preparing():
                self._keep_best(self._stage.validate(), self._log)
        self._validation_due = self._agreed(self._validation_due)
        self._accelerator.wait_for_everyone()

    def _keep_best(self, found: Validation, log: Log) -> None:
        log.write(self._step, {f"{VALIDATION}{name}": value for name, value in found.scalars.items()})
        score = torch.inf if isnan(found.score) else found.score
        if self._best is None or score < self._best:
            self._best = score
            self._run.write_best(self._stage.model_file())
        self._validation_due = False

    def _save(self) -> None:
        if self._main:
            scaler = self._accelerator.scaler
            self._run.write_state(
                TrainingState(
                    step=self._step,
                    best_score=self._best,
                    weights=self._stage.state_dict(),
                    optimizer=self._optimizer.state_dict(),
                    scaler=None if scaler is None else scaler.state_dict(),
                    validation_due=self._validation_due,
                )
            )
        self._saved_step = self._step
        self._accelerator.wait_for_everyone()

    def _is_due(self, every: int) -> bool:
        return self._step % every == 0 or self._step == self._settings.steps

    def _out_of_time(self) -> bool:
        """Whether the time limit is reached, as decided by the main process."""
        return self._agreed(self._deadline.is_over)

    def _agreed(self, decision: bool) -> bool:
        """Broadcast the decision of the main process to all processes."""
        from accelerate.utils import broadcast_object_list

        shared = [decision]
        if self._accelerator.num_processes > 1:
            broadcast_object_list(shared)
        return shared[0]
