"""From a model to ONNX files, and from them to the same answers, through the program itself."""

import json
import subprocess
import sys

import pytest

from vpr_dhe.synthetic_town.town import SyntheticTown, write_town


def answers(run, index, queries, *options):
    code, stdout, stderr = run("query", index, queries, "--format", "json", "--device", "cpu", *options)
    assert code == 0, stderr
    return [
        [(match["image"], match["inliers"]) for match in query["matches"]] for query in json.loads(stdout)["queries"]
    ]


def test_an_index_is_asked_with_either_runtime(run, exported, photo_folder, tmp_path):
    index = tmp_path / "index"
    options = ("--model", exported.model, "--codec", "float16", "--device", "cpu")
    code, stdout, stderr = run("index", photo_folder, "--out", index, *options)
    assert (code, "12 images (12 added" in stdout) == (0, True), stderr
    onnx = ("--runtime", "onnx", "--model", exported.folder)
    queries = photo_folder / "sub"
    assert answers(run, index, queries) == answers(run, index, queries, *onnx)
    code, stdout, stderr = run("index", photo_folder, "--out", index, *onnx, "--device", "cpu")
    assert (code, "0 added, 12 unchanged" in stdout) == (0, True), stderr


@pytest.mark.usefixtures("native_bf16")
def test_mistakes_are_one_sentence(run, exported, photo_folder, tmp_path, monkeypatch):
    def complaint(*arguments):
        code, stdout, stderr = run(*arguments)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1), stderr
        return stderr

    index = ("index", photo_folder, "--out", tmp_path / "index", "--device", "cpu")
    asked = (*index, "--model", exported.model, "--runtime", "onnx", "--precision", "bf16")
    assert "give --model FOLDER" in complaint(*asked).splitlines()[-1]
    assert "is an export to ONNX" in complaint(*index, "--model", exported.folder, "--runtime", "torch")
    assert "contains no export.json" in complaint(*index, "--model", photo_folder)
    out = ("--out", tmp_path / "out")
    assert "--part head exports its head dhe-lite" in complaint("export", "sift-vlad", *out)
    assert "holds no head" in complaint("export", exported.model, "--part", "head", *out)
    assert "unknown model" in complaint("export", "sift-flat", *out)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert 'pip install "vpr-dhe[export]"' in complaint("export", exported.model, *out)
    assert 'pip install "vpr-dhe[export]"' in complaint(*index, "--model", exported.model, "--runtime", "onnx")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
def test_the_bundled_network_is_exported_and_finds_the_same_places(run, tmp_path):
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:12]
    write_town(tmp_path / "town", town, database, town.query_cameras(3, 1, database), seed=1)
    images, index = tmp_path / "town/images/test", tmp_path / "index"
    command = [sys.executable, "-m", "vpr_dhe", "export", "cct-offline", "--out", str(tmp_path / "onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        f"{tmp_path}/onnx/{part}.onnx" for part in ("extractor", "head")
    ]
    code, _, stderr = run("index", images / "database", "--out", index, "--model", "cct-offline", "--device", "cpu")
    assert code == 0, stderr
    onnx = ("--runtime", "onnx", "--model", tmp_path / "onnx")
    for verifier in ("dhe-lite", "magsac"):
        expected = answers(run, index, images / "queries", "--verifier", verifier)
        assert max(inliers for query in expected for _, inliers in query) > 10
        assert answers(run, index, images / "queries", "--verifier", verifier, *onnx) == expected


@pytest.mark.slow
def test_a_head_alone_is_exported(run, photo_folder, tmp_path):
    code, stdout, stderr = run("export", "sift-vlad", "--part", "head", "--out", tmp_path / "onnx")
    assert (code, stdout.startswith(f"{tmp_path}/onnx/head.onnx: 0.3 MB")) == (0, True), stderr
    code, _, stderr = run("index", photo_folder, "--out", tmp_path / "index", "--model", tmp_path / "onnx")
    assert (code, "does not contain the extractor" in stderr) == (2, True)
