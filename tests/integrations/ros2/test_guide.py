"""Commands of the guide over real DDS: each node answers a camera, and leaves when it is told to."""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import little_town
import pytest
from snippets import ROOT, snippets_of

pytest.importorskip("cyclonedds", reason="no cyclonedds; pip install vpr-dhe[ros2]")

from tests.integrations.ros2 import lo

DEADLINE_S = 120.0
COMMANDS = [command for snippet in snippets_of(ROOT / "docs/guides/ros.md") for command in snippet.commands]
NODES = [command for command in COMMANDS if command[:2] == ["vpr-dhe", "ros2"]]
[CAMERA] = [command for command in COMMANDS if "examples/ros2_camera.py" in command]
MAP = next(command for command in COMMANDS if command[:3] == ["vpr-dhe", "index", "--bag"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, worker_id) -> Path:
    """Folder of the reader, with the map of the guide."""
    folder = little_town.copy(
        little_town.made_once(tmp_path_factory, worker_id), tmp_path_factory.mktemp("guide") / "a"
    )
    subprocess.run([sys.executable, "-m", *module(MAP)], cwd=folder, env=environment(), check=True)
    return folder


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"}


def module(command: list[str]) -> list[str]:
    return ["vpr_dhe", *command[1:]]


def line_of(output: Path, fits) -> str:
    """The first line of a file that fits, once it is there."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        for line in output.read_text().splitlines():
            if fits(line):
                return line
        time.sleep(0.05)
    raise TimeoutError(output.read_text())


@pytest.mark.slow
def test_a_newcomer_gets_positions(folder, tmp_path):
    variables = environment() | lo.environment()
    with ExitStack() as stack:
        file = stack.enter_context((tmp_path / "fixes").open("w"))
        started = [
            ([sys.executable, "-m", *module(NODES[0])], None),
            ([sys.executable, str(ROOT / CAMERA[1]), *CAMERA[2:]], file),
        ]
        node, camera = (
            stack.enter_context(subprocess.Popen(command, cwd=folder, env=variables, stdout=output))
            for command, output in started
        )
        try:
            latitude, longitude = map(float, line_of(tmp_path / "fixes", lambda line: "," in line).split(","))
            assert (latitude, longitude) == pytest.approx((48.0, 2.0), abs=0.01)
            node.send_signal(signal.SIGTERM)
            assert node.wait(DEADLINE_S) == 0
        finally:
            node.kill()
            camera.kill()


@pytest.mark.slow
@pytest.mark.parametrize("command", NODES, ids=shlex.join)
def test_nodes_of_the_guide_start_and_leave(command, folder, tmp_path):
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", *module(command)], cwd=folder, env=environment() | lo.environment(), stderr=log
        ) as node,
    ):
        try:
            line_of(tmp_path / "log", lambda line: "localizing" in line)
            node.send_signal(signal.SIGTERM)
            assert node.wait(DEADLINE_S) == 0
        finally:
            node.kill()
