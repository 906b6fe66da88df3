"""The programs in `examples/`: each does on a small town what it says."""

import csv
import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import little_town
import numpy as np
import pytest
import recordings

from vpr_dhe.cli import main
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import MetricPosition

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
    assert len(programs) == 6
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


@pytest.fixture
def commanded(monkeypatch, capsys) -> Run:
    """Run `vpr-dhe` in this process."""

    def call(*arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["vpr-dhe", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code
        return capsys.readouterr().out.splitlines()

    return call


@pytest.mark.slow
@pytest.mark.data
def test_positions_of_photos_come_from_colmap(run, commanded, real_images, tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="no pycolmap; pip install pycolmap")
    pycolmap.set_random_seed(0)
    photos, index, pairs = real_images / "train_open" / "rtabmap_corridor", tmp_path / "index", tmp_path / "pairs.txt"
    work, table = tmp_path / "colmap", tmp_path / "positions.csv"
    commanded("index", photos, "--out", index)
    pairing = ("--names-relative-to", photos, "--format", "hloc", "--top-k", "12", "--rerank", "20")
    commanded("query", index, photos, *pairing, "--out", pairs)
    assert "positions of " in run("colmap_positions.py", photos, pairs, "--work", work, "--out", table)[-1]

    # Walls without texture part the corridor into several models; COLMAP keeps those of at least ten images.
    (best,) = sorted(map(pycolmap.Reconstruction, work.glob("[0-9]*")), key=lambda model: model.num_reg_images())[-1:]
    positions = {row["image"]: np.array([float(row["x"]), float(row["y"])]) for row in csv.DictReader(table.open())}
    centres = {image.name: image.projection_center() for image in best.images.values()}
    assert positions.keys() == centres.keys()
    assert len(positions) >= 10
    for one, other in itertools.combinations(positions, 2):
        across = np.linalg.norm(positions[one] - positions[other])
        assert across <= np.linalg.norm(centres[one] - centres[other]) * (1 + 1e-6)

    commanded("index", photos, "--out", index, "--positions", table)
    known = PlaceIndex.open(index)
    found = {record.path: record.position for record in map(known.image, known.ids.tolist()) if record.position}
    assert found.keys() == positions.keys()
    for name, place in found.items():
        assert isinstance(place, MetricPosition)
        np.testing.assert_allclose([place.x_m, place.y_m], positions[name], atol=1e-9)
    best_of = commanded("query", index, photos / next(iter(positions)), "--format", "json", "--rerank", "20")
    assert json.loads("\n".join(best_of))["queries"][0]["position_estimate"]


def test_a_colmap_model_becomes_a_table_of_positions(run, tmp_path):
    """Cameras of a known square, in a plane that is tilted."""
    tilted = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0][:2]
    square = np.array([[0, 0], [3, 0], [3, 2], [0, 2]])
    lines = [f"{i} 1 0 0 0 {' '.join(map(str, -centre))} 1 {i}.jpg\n\n" for i, centre in enumerate(square @ tilted)]
    (tmp_path / "images.txt").write_text("".join(lines))
    table = tmp_path / "table.csv"
    run("colmap_positions.py", "photos", "--model", tmp_path, "--metres-per-unit", "2", "--out", table)
    rows = list(csv.DictReader(table.open()))
    assert [row["image"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    found = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    turned = found * np.sign(found[2])  # the axes may point either way
    np.testing.assert_allclose(turned, [[-3, -2], [3, -2], [3, 2], [-3, 2]], atol=1e-9)
