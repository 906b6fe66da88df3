"""`--rerun` of query; commands of docs/guides/replay.md run that of loops and evaluate."""

import sys

import pytest


def entities(path) -> set[str]:
    reader = pytest.importorskip("rerun.chunk", reason="no rerun-sdk; pip install vpr-dhe[rerun]").RrdReader(path)
    return {chunk.entity_path for chunk in reader.stream(store=reader.recordings()[0]).to_chunks()}


def test_a_run_is_recorded(run, photo_folder, tmp_path):
    pytest.importorskip("rerun", reason="no rerun-sdk; pip install vpr-dhe[rerun]")
    index, file = tmp_path / "index", tmp_path / "run.rrd"
    assert run("index", photo_folder, "--out", index, "--model", "sift-vlad", "--codec", "float16")[0] == 0
    code, stdout, _ = run("query", index, photo_folder, "--sequence", "--format", "jsonl", "--rerun", file)
    assert (code, len(stdout.splitlines())) == (0, 12)
    assert {"/query/image", "/match/image", "/candidates", "/belief/best", "/log"} <= entities(file)


def test_a_missing_package_is_said_before_the_work(run, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    code, stdout, stderr = run("loops", photo_folder, "--rerun", tmp_path / "run.rrd")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert 'pip install "vpr-dhe[rerun]"' in stderr
    assert not (tmp_path / "run.rrd").exists()
