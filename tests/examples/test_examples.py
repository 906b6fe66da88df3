"""The programs in `examples/`: each does on a small town what it says."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import little_town
import pytest
import recordings

from vpr_dhe.images import decode_image

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, worker_id) -> Path:
    return little_town.copy(little_town.made_once(tmp_path_factory, worker_id), tmp_path_factory.mktemp("run") / "work")


@pytest.fixture
def run(folder, monkeypatch, capsys) -> Run:
    """Run an example in this process, in the folder of the town; returns the lines that it prints."""

    def call(name: str, *arguments: object) -> list[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return call


def test_all_are_short_and_documented():
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) == 5
    for program in programs:
        text = program.read_text(encoding="utf-8")
        assert text.startswith('"""')
        assert "argparse" in text
        assert len(text.splitlines()) <= 60, program.name


def test_a_robot_finds_where_each_frame_was_taken(run):
    lines = run("robot.py", "my-index", "walk.mp4", "--all-frames")
    assert len(lines) == 12
    assert all(re.match(rf"frame {number} at ", line) for number, line in enumerate(lines))
    # Frames of the video are indexed images: the belief settles on them.
    assert sum("p = " in line for line in lines) > 6


def test_a_robot_that_cannot_wait_drops_frames(run):
    lines = run("robot.py", "my-index", "walk.mp4", "--moved", "1")
    assert lines
    assert lines[-1].startswith("frame 11 ")


@pytest.mark.slow
def test_loops_of_a_bag_join_frames_of_one_place(run, folder):
    views = sorted((folder / "photos").glob("@*.jpg"))[:16:2]
    frames = [decode_image(path) for path in views]
    bag = recordings.bag_of(folder / "loop.bag", [*frames, *frames])
    lines = run("loop_closure.py", bag, "--topic", recordings.IMAGES, "--recent", "2")
    pairs = [re.findall(r"\d{8}", line) for line in lines if " inliers" in line]
    assert len(pairs) >= 2
    # What came after the turn shows what came as many frames before.
    assert sum(int(later) - int(earlier) == len(frames) for later, earlier in pairs) >= len(pairs) / 2


def test_own_data_is_evaluated_by_each_method(run):
    lines = run("evaluate_own_data.py", "my-data", "--positions", "my-data/positions.csv", "--verifiers", "magsac")
    assert [line.split()[:2] for line in lines[1:]] == [["lite-vlad", "retrieval"], ["lite-vlad", "magsac"]]
    assert all(0 <= float(line.split()[2]) <= 100 for line in lines[1:])


def test_own_data_that_is_not_there_is_one_sentence(run):
    with pytest.raises(SystemExit, match="nowhere"):
        run("evaluate_own_data.py", "nowhere")


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """A service of the town in a process of its own; gives its address."""
    command = [sys.executable, "-m", "vpr_dhe", "serve", "my-index", "--port", "0", "--rerank", "5"]
    environment = os.environ | {"VPR_DHE_TOKEN": "SECRET"}
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://\S+", process.stderr.readline())
            assert address
            yield address[0]
        finally:
            process.kill()


@pytest.mark.slow
def test_a_client_asks_and_adds(run, folder, monkeypatch):
    pytest.importorskip("fastapi", reason="no fastapi; pip install .[serve]")
    with service(folder) as address:
        lines = run("service_client.py", "where-is-this.jpg", "--service", address, "--top-k", "2")
        assert [line[:2] for line in lines] == ["1.", "2."]
        with pytest.raises(SystemExit, match="422: "):
            run("service_client.py", "positions.csv", "--service", address)
        with pytest.raises(SystemExit, match="401: "):
            run("service_client.py", "new.jpg", "--add", "--service", address)
        monkeypatch.setenv("VPR_DHE_TOKEN", "SECRET")
        [added] = run("service_client.py", "new.jpg", "--add", "--service", address)
        assert "new.jpg" in added
    with pytest.raises(SystemExit, match="no service"):
        run("service_client.py", "new.jpg", "--service", address)
