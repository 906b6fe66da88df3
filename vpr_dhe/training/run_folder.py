"""Folder of a training run: state, settings, logs and the best model."""

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from vpr_dhe.errors import BadInputError
from vpr_dhe.models.names import SUFFIX
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX, sync_folder, write_durably
from vpr_dhe.training.stage import Fact, Savable

_STATE, _FACTS, _LOG, _BEST = "state.pt", "training.json", "log.csv", f"best{SUFFIX}"
_LOG_HEADER = ("step", "name", "value")
TorchState: TypeAlias = dict[str, Any]
"""State dictionary of torch's modules, optimisers and scalers."""


@dataclass(frozen=True)
class TrainingState:
    """State to resume training from: `step` steps are done; `best_score` is None before the first validation.

    There is no random state, because data and random numbers are determined by seed and step. `validation_due` is
    whether the validation after the last step is still to be done.
    """

    step: int
    best_score: float | None
    weights: TorchState
    optimizer: TorchState
    scaler: TorchState | None
    validation_due: bool = False


class RunFolder:
    """Training run on disk; the last saved state stays readable if the run is killed.

    Raises:
        BadInputError: if the folder contains something else, or a run with other settings.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Fact], *, writes: bool = True) -> None:
        self.folder = folder
        self.best_model = folder / _BEST
        claim_folder(folder, facts, "give the name of a new folder", writes=writes)

    def read_state(self) -> TrainingState | None:
        """Read the last saved state; None before the first.

        Raises:
            BadInputError: if the file is damaged.
        """
        path = self.folder / _STATE
        if not path.is_file():
            return None
        try:
            return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # damaged files raise errors of any kind
            raise BadInputError(f"{path} cannot be read ({error}); start again in a new folder") from error

    def write_state(self, state: TrainingState) -> None:
        """Replace the state atomically."""
        temporary = self.folder / f"{_STATE}{TEMPORARY_SUFFIX}"
        with temporary.open("wb") as file:
            torch.save(vars(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / _STATE)
        sync_folder(self.folder)

    def write_best(self, model: Savable) -> None:
        """Replace the best model."""
        model.save(self.best_model)

    def open_log(self, step: int) -> "Log":
        """Open the logs, and drop the entries after a step."""
        return Log(self.folder, step)


def saved_step(folder: Path) -> int | None:
    """Number of steps of the saved state of a run; None if there is no readable state."""
    try:
        return int(torch.load(folder / _STATE, map_location="cpu", weights_only=True, mmap=True)["step"])
    except Exception:  # missing and damaged files raise errors of any kind
        return None


class Log:
    """Log of scalars by step, in `log.csv` (one line per value) and for TensorBoard."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        path = folder / _LOG
        kept = _rows_until(path, step)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerows([_LOG_HEADER, *kept])
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the values of one step."""
        for name, value in scalars.items():
            self._rows.writerow([step, name, f"{value:.6g}"])
            self._events.add_scalar(name, value, step)
        self._file.flush()

    def close(self) -> None:
        """Close both logs."""
        self._file.close()
        self._events.close()


def network_facts(settings: object, options: type) -> dict[str, Fact]:
    """Facts of a network's settings, without fields of its base dataclass `options` that have their defaults.

    Runs from before an option existed can then be resumed.
    """
    stored: Any = settings
    defaults: Any = options()
    optional = asdict(defaults)
    return {name: value for name, value in asdict(stored).items() if name not in optional or value != optional[name]}


def claim_folder(folder: Path, facts: Mapping[str, Fact], remedy: str, *, writes: bool = True) -> None:
    """Create the folder of a run with these facts, or check that it contains such a run.

    Args:
        folder: folder of the run.
        facts: all settings that affect the result.
        remedy: instruction for starting another run, for messages.
        writes: whether to create the folder if there is none.

    Raises:
        BadInputError: if the folder contains something else, or a run with other settings.
    """
    if (folder / _FACTS).is_file():
        _require_same(folder, facts, remedy)
    elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise BadInputError(f"{folder} exists but contains no training run; {remedy}")
    elif writes:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder, _FACTS, (json.dumps(dict(facts), indent=1) + "\n").encode())


def _require_same(folder: Path, facts: Mapping[str, Fact], remedy: str) -> None:
    known = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    for name in sorted({*known, *facts}):
        if known.get(name) != facts.get(name):
            raise BadInputError(
                f"{folder} contains a run with {name} = {known.get(name)!r}, not {facts.get(name)!r}; continue with "
                f"the same settings, or {remedy}"
            )


def _rows_until(path: Path, step: int) -> list[list[str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    # A truncated last line of a killed run is of a later step, or will be written again.
    return [row for row in rows if len(row) == len(_LOG_HEADER) and row[0].isdecimal() and int(row[0]) <= step]
