"""The prepared script for a GPU: what it says without one, and that a part that fails does not end it."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_without_a_device_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "no CUDA device" in said.err


def test_latencies_and_rates_are_compared_the_right_way_round():
    assert gpu.Row("index", "images/s", 100.0, 20.0).times_faster == 5
    assert gpu.Row("query", "ms", 20.0, 100.0).times_faster == 5
    assert gpu.Row("query", "ms", 20.0).times_faster is None


def test_what_failed_is_reported_beside_what_was_measured():
    measured = gpu.Part("query", 1.0, (gpu.Row("query", "ms", 20.0, 100.0),))
    text = gpu.markdown([measured, gpu.Part("search", 1.0, fault="FAISS finds no GPU")])
    assert "| query | ms | 20.0 | 100.0 | 5.0 |" in text
    assert "- search: FAISS finds no GPU" in text


@pytest.mark.slow
def test_a_part_that_fails_or_hangs_is_ended_and_reported():
    # The process of a part cannot import this module, so its work is made of built-in functions.
    fail, hang = partial(exec, r'raise RuntimeError("out of\nmemory")'), partial(time.sleep, 60)
    assert gpu.run_part("fails", fail, 60.0).fault == "RuntimeError: out of memory"
    assert gpu.run_part("hangs", hang, 0.1).fault == "took more than 0 s"


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--small", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not measured" not in (tmp_path / "gpu.md").read_text()
    assert (tmp_path / "gpu.md").read_text().count("\n") == 2 + 4 + 2 + 3 + 2
