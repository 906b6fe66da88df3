"""The benchmarks that ask whether an index survives, small enough for every day; each ends with a message if not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_it_acknowledged():
    result = json.loads(run("crash.py", "--kills", 30, "--command-kills", 2))
    assert sum(result["library"]["killed_at"].values()) == 30
    assert len(result["library"]["killed_at"]) >= 3
    assert result["library"]["extracted_by_resuming"] > 0


@pytest.mark.slow
def test_two_readers_and_a_writer_at_once_get_right_answers():
    writer, *readers = json.loads(run("together.py", "--seconds", 60))
    assert min(writer[operation] for operation in ("add", "replace", "remove", "compact")) > 0
    assert len(readers) == 2
    assert min(min(reader["answers"], reader["states"]) for reader in readers) > 10
