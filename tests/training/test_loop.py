"""The loop on a stage of a few numbers: what it writes, and that an interruption leaves no trace."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_stage
import torch
from small_stage import LineBatches, LineStage, UnreadableBatches
from torch import nn

from vpr_dhe.errors import BadInputError, ImageError, MissingExtraError
from vpr_dhe.models.model_file import load_model
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.run_folder import RunFolder
from vpr_dhe.training.stage import StepLoss

SETTINGS = LoopSettings(steps=40, validate_every=10, save_every=7, log_every=5, on_cpu=True)


def weights(stage):
    return {name: value.clone() for name, value in stage.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder, stage = tmp_path_factory.mktemp("runs") / "whole", LineStage()
    result = train(stage, SETTINGS, folder)
    return folder, stage, result


def test_a_run_learns_logs_and_keeps_its_best_model(uninterrupted):
    folder, _, result = uninterrupted
    assert result.finished
    assert result.step == 40
    log = rows(folder)
    losses = [float(row["value"]) for row in log if row["name"] == "loss"]
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 5
    rates = [float(row["value"]) for row in log if row["name"] == "learning_rate"]
    np.testing.assert_allclose(
        rates, [0.05 * 0.9 ** (step // 10) for step in (4, 9, 14, 19, 24, 29, 34, 39)], rtol=1e-4
    )
    errors = {row["step"]: float(row["value"]) for row in log if row["name"] == "validation/error"}
    assert list(errors) == ["10", "20", "30", "40"]
    assert result.best_score == pytest.approx(min(errors.values()), rel=1e-4)
    assert load_model(result.best_model).name == "line"
    assert any((folder / "tensorboard").iterdir())


@pytest.mark.parametrize("broken_at", [1, 6, 7, 8, 21, 39])
def test_interrupted_and_continued_it_gives_the_same_bits(uninterrupted, tmp_path, broken_at):
    folder, whole, result = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        train(LineStage(broken_at=broken_at), SETTINGS, tmp_path / "run")
    stage = LineStage()
    again = train(stage, SETTINGS, tmp_path / "run")
    assert same(weights(stage), weights(whole))
    assert again.best_score == result.best_score
    assert rows(tmp_path / "run")[-1] == rows(folder)[-1]
    assert load_model(again.best_model).tensors.keys() == load_model(result.best_model).tensors.keys()
    assert same(load_model(again.best_model).tensors, load_model(result.best_model).tensors)


def test_slices_of_time_are_continued(uninterrupted, tmp_path):
    _, whole, _ = uninterrupted
    slices = 0
    while True:
        stage = LineStage()
        result = train(stage, replace(SETTINGS, max_minutes=0.0), tmp_path / "run")
        slices += 1
        if result.finished:
            break
    assert slices == 40
    assert same(weights(stage), weights(whole))


@pytest.mark.slow
def test_batches_of_workers_are_the_same(uninterrupted, tmp_path):
    _, whole, _ = uninterrupted
    stage = LineStage()
    train(stage, replace(SETTINGS, workers=2), tmp_path / "run")
    assert same(weights(stage), weights(whole))


def test_a_finished_run_can_be_extended_and_is_left_alone_otherwise(uninterrupted, tmp_path):
    _, whole, result = uninterrupted
    short = replace(SETTINGS, steps=20)
    train(LineStage(), short, tmp_path / "run")
    again = train(LineStage(), short, tmp_path / "run")
    assert again.finished
    assert again.step == 20
    stage = LineStage()
    longer = train(stage, SETTINGS, tmp_path / "run")
    assert longer.best_score == result.best_score
    assert same(weights(stage), weights(whole))


@pytest.mark.parametrize("as_path", [str, Path])
def test_other_settings_and_other_folders_are_refused(uninterrupted, tmp_path, as_path):
    folder, _, _ = uninterrupted
    with pytest.raises(BadInputError, match=r"rate = 0.05, not 0.1"):
        train(LineStage(rate=0.1), SETTINGS, as_path(folder))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInputError, match="no training run"):
        train(LineStage(), SETTINGS, as_path(tmp_path))


def test_a_damaged_state_is_said(tmp_path):
    train(LineStage(), LoopSettings(steps=2, on_cpu=True), tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(BadInputError, match="cannot be read"):
        train(LineStage(), LoopSettings(steps=3, on_cpu=True), tmp_path / "run")


def test_a_gradient_that_is_no_number_moves_nothing(tmp_path):
    class Broken(LineBatches):
        def batch(self, turn):
            points = super().batch(turn)
            return points._replace(x=points.x * (torch.nan if turn.step == 2 else 1))

    stage = LineStage()
    stage.batches = Broken()
    train(stage, SETTINGS, tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in weights(stage).values())


def test_parts_of_a_stage_are_scaled_down_apart(tmp_path):
    class Unequal(LineStage):
        """The gradient of one part is a million times that of the other."""

        def __init__(self, *, apart: bool) -> None:
            super().__init__()
            self.apart, self.steep, self.flat = apart, nn.Linear(1, 1), nn.Linear(1, 1)

        def optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def gradient_parts(self):
            return [self.steep, self.flat] if self.apart else [self]

        def forward(self, batch):
            return StepLoss(1e6 * self.steep.weight.sum() + self.flat.weight.sum(), {})

    moved = {}
    for apart in (False, True):
        stage = Unequal(apart=apart)
        before = stage.flat.weight.item()
        train(stage, replace(SETTINGS, steps=1), tmp_path / str(apart))
        moved[apart] = before - stage.flat.weight.item()
    assert moved[True] == pytest.approx(0.1, rel=1e-3)
    assert moved[False] < 1e-6


def test_without_the_extra_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"vpr-dhe\[train\]\""):
        train(LineStage(), SETTINGS, tmp_path / "run")


# Where processes of their own find what the tests share.
HERE = str(Path(small_stage.__file__).parent)

_ENDLESS = """
import sys
sys.path.append(sys.argv[2])
from pathlib import Path
from small_stage import LineStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.run_folder import RunFolder
from vpr_dhe.training.stage import StepLoss
train(LineStage(), LoopSettings(steps=10**9, save_every=1, validate_every=3, on_cpu=True), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path):
    run = tmp_path / "run"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(run), HERE])
        before = (run / "state.pt").stat().st_mtime_ns if (run / "state.pt").exists() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (run / "state.pt").exists() and (run / "state.pt").stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    stage = LineStage()
    facts = {**stage.facts, "processes": 1, "loop_seed": 0, "precision": "no", "max_gradient_norm": 1.0}
    state = RunFolder(run, facts).read_state()
    settings = LoopSettings(steps=state.step + 5, save_every=1, validate_every=3, on_cpu=True)
    train(stage, settings, run)
    whole = LineStage()
    train(whole, settings, tmp_path / "whole")
    assert same(weights(stage), weights(whole))


_OF_TWO = """
import os, sys
sys.path.append(sys.argv[2])
from pathlib import Path
import torch
from small_stage import LineStage
from vpr_dhe.training.loop import LoopSettings, train
stage = LineStage()
minutes = 0.0 if sys.argv[3] == "slice" else None
settings = LoopSettings(steps=12, validate_every=5, save_every=4, on_cpu=True, max_minutes=minutes)
train(stage, settings, Path(sys.argv[1]))
torch.save(stage.state_dict(), f"{sys.argv[1]}/weights-{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
def test_two_processes_agree_and_go_on_after_an_interruption(tmp_path):
    (tmp_path / "script.py").write_text(_OF_TWO)

    def run(name, how):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
        launch += ["--rdzv-endpoint", "localhost:0", str(tmp_path / "script.py")]
        subprocess.run([*launch, str(tmp_path / name), HERE, how], check=True, timeout=600)

    run("whole", "whole")
    run("sliced", "slice")
    run("sliced", "whole")
    found = [torch.load(tmp_path / name / f"weights-{rank}.pt") for name in ("whole", "sliced") for rank in (0, 1)]
    assert all(same(found[0], weights) for weights in found[1:])
    assert {row["step"] for row in rows(tmp_path / "sliced") if row["name"] == "validation/error"} == {"5", "10", "12"}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_image_that_cannot_be_read_is_named(tmp_path, workers):
    stage = LineStage()
    stage.batches = UnreadableBatches()
    with pytest.raises(ImageError) as caught:
        train(stage, replace(SETTINGS, workers=workers), tmp_path / "run")
    assert str(caught.value) == "photos/5.jpg: damaged or truncated image"


def test_a_first_score_that_is_no_number_is_not_kept_for_ever(tmp_path, monkeypatch):
    scores, validate = iter([math.nan, 3.0, 2.0, math.nan]), LineStage.validate
    monkeypatch.setattr(LineStage, "validate", lambda self: replace(validate(self), score=next(scores)))
    assert train(LineStage(), SETTINGS, tmp_path / "run").best_score == 2.0


def test_another_precision_in_one_process_is_refused(tmp_path):
    train(LineStage(), replace(SETTINGS, steps=10), tmp_path / "run")
    with pytest.raises(BadInputError, match="in another precision before; train in a new process"):
        train(LineStage(), replace(SETTINGS, steps=10, precision="bf16"), tmp_path / "other")
