"""What version 0.1.0 wrote still opens, and means the same; `make.py` made the fixtures."""

import csv
import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vpr_dhe import PlaceIndex, load_extractor
from vpr_dhe.cli import main

FIXTURES = Path(__file__).parent / "fixtures"
DATABASE, QUERIES = Path("town/images/test/database"), Path("town/images/test/queries")
RERANK = 12
# How far numbers of this name may be off; of others, only their presence counts.
TOLERANCES = {
    "similarity": 1e-3,
    "inliers": 2,
    "score": 2,
    "probability": 0.02,
    **dict.fromkeys(("rank", "latitude_deg", "longitude_deg", "num_database", "num_queries", "1", "2"), 1e-6),
    **dict.fromkeys(("x_m", "y_m"), 1.0),
}
# Facts about the program and the machine of an evaluation.
PROVENANCE = {"version", "machine"}
TRAINING = (
    *("train", "descriptor", "town", "--split", "test", "--model", "tiny.safetensors", "--mining", "random"),
    *("--negatives", 2, "--batch-size", 2, "--learning-rate", 1e-3, "--training-data", "a synthetic town"),
    *("--validation-pairs", 1, "--steps", 4, "--save-every", 1, "--log-every", 1, "--out", "run", "--device", "cpu"),
)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """A copy of the fixtures, in which commands run: answers name files as they were named then."""
    # Modification times are new, as after a checkout.
    shutil.copytree(FIXTURES, tmp_path, copy_function=shutil.copy, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the program in this process; returns stdout and stderr."""

    def call(*arguments: object, expect: int = 0) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["vpr-dhe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        assert (ended.value.code or 0) == expect, output.err
        return output.out, output.err

    return call


def require_agreement(found: Any, expected: Any, name: str = "") -> None:
    """Whatever was said then is still said, up to the tolerances; there may be more."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{name} has lost {key}"
            require_agreement(found[key], value, key)
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for one, other in zip(found, expected, strict=True):
            require_agreement(one, other, name)
    elif isinstance(expected, int | float) and not isinstance(expected, bool):
        assert abs(found - expected) <= TOLERANCES.get(name, math.inf), (name, found, expected)
    else:
        assert found == expected, name


def stored(name: str) -> Any:
    """What was answered then; a list where each line is an answer."""
    text = (FIXTURES / "answers" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)


def lines(said: str) -> list[Any]:
    return [json.loads(line) for line in said.splitlines()]


def change_manifest(index: str, **content: object) -> None:
    """Change what a manifest says, and its checksum with it."""
    path = Path(index, "manifest.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["content"] |= content
    canonical = json.dumps(document["content"], sort_keys=True)
    path.write_text(json.dumps(document | {"sha256": hashlib.sha256(canonical.encode()).hexdigest()}))


def files_of(index: str) -> set[str]:
    """All files that hold what was extracted or built."""
    return {str(path) for part in ("segments", "vectors") for path in Path(index, part).rglob("*") if path.is_file()}


def contents_of(index: str) -> list[tuple[str, str]]:
    """Names and checksums of these files, without the tables of rows, which hold the times of image files."""
    paths = [path for path in map(Path, files_of(index)) if path.name != "rows.bin"]
    return sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)


def test_an_index_is_what_was_written(run):
    for index, images, segments, model in (
        ("sift-index", 11, 2, "sift-vlad"),
        ("tiny-index", 12, 1, "/data/models/tiny.safetensors"),
    ):
        report = json.loads(run("check", index, "--format", "json")[0])
        expected = {"images": images, "segments": segments, "skipped": 1, "model": model, "damaged": []}
        assert {name: report[name] for name in expected} == expected


def test_an_index_answers_as_it_did(run):
    asked = ("query", "sift-index", QUERIES, "--rerank", RERANK, "--device", "cpu")
    document = json.loads(run(*asked, "--top-k", 2, "--format", "json")[0])
    require_agreement(document, stored("sift-magsac.json"))
    assert all(query["matches"][0]["probability"] > 0.9 for query in document["queries"])
    require_agreement(lines(run(*asked, "--top-k", 2, "--format", "jsonl")[0]), stored("sift-magsac.jsonl"))
    learned = (*asked, "--top-k", 1, "--format", "json", "--verifier", "dhe-lite")
    require_agreement(json.loads(run(*learned)[0]), stored("sift-dhe-lite.json"))


def test_a_calibration_judges(run):
    asked = ("query", "sift-index", QUERIES, "--rerank", RERANK, "--format", "jsonl", "--device", "cpu")
    known, unknown = (lines(run(*asked, "--min-probability", least)[0]) for least in (0.9, 0.9999))
    assert [answer["known"] for answer in known + unknown] == [True] * 3 + [False] * 3
    _, complaint = run(*asked[:-4], "--rerank", RERANK + 1, "--min-probability", 0.9, expect=2)
    assert "not calibrated" in complaint


def test_indexing_goes_on_from_what_is_there(run):
    change_manifest("sift-index", images_folder=str(DATABASE.resolve()))
    contents = contents_of("sift-index")
    part = ("index", DATABASE / "second", "--out", "sift-index", "--add", "--device", "cpu")
    said, complaints = run(*part)
    assert "11 images (0 added, 6 unchanged, 1 skipped)" in said
    assert re.search(r"skipped second/\S+broken", complaints)
    assert contents_of("sift-index") == contents
    # The new times of the files are stored, once.
    before = files_of("sift-index")
    assert run(*part)[0] == said
    assert files_of("sift-index") == before
    # The removed image comes back when all of the folder is indexed.
    said, _ = run("index", DATABASE, "--out", "sift-index", "--device", "cpu")
    assert "12 images (1 added, 11 unchanged, 1 skipped)" in said
    assert set(contents_of("sift-index")) > set(contents)


def test_compaction_keeps_what_was_not_removed(run):
    run("compact", "sift-index")
    report = json.loads(run("check", "sift-index", "--format", "json")[0])
    assert (report["images"], report["segments"], len(report["damaged"])) == (11, 1, 0)
    asked = ("query", "sift-index", QUERIES, "--rerank", RERANK, "--top-k", 2, "--device", "cpu")
    require_agreement(json.loads(run(*asked, "--format", "json")[0]), stored("sift-magsac.json"))


@pytest.mark.parametrize("model", [("tiny.safetensors",), ("tiny-onnx", "--runtime", "onnx")], ids=["torch", "onnx"])
def test_an_index_of_a_model_file_answers_as_it_did(run, model):
    asked = ("query", "tiny-index", QUERIES, "--rerank", RERANK, "--top-k", RERANK, "--device", "cpu")
    found = lines(run(*asked, "--format", "jsonl", "--model", *model)[0])
    for answer, expected in zip(found, stored("tiny-magsac.jsonl"), strict=True):
        inliers = [match["inliers"] for match in answer["matches"]]
        assert inliers == sorted(inliers, reverse=True)
        # So few matches leave many ties, whose order says nothing.
        for one in (answer, expected):
            one["matches"].sort(key=lambda match: match["image"])
            for match in one["matches"]:
                del match["rank"], match["homography"]
        del expected["position_estimate"]
        require_agreement(answer, expected)


def test_an_index_with_a_graph_goes_on(run):
    change_manifest("tiny-index", images_folder=str(DATABASE.resolve()))
    before = contents_of("tiny-index")
    assert any(name.endswith(".faiss") for name, _ in before)
    options = ("--model", "tiny.safetensors", "--positions", "town/positions.csv", "--device", "cpu")
    said, _ = run("index", DATABASE, "--out", "tiny-index", *options)
    assert "12 images (0 added, 12 unchanged, 1 skipped)" in said
    assert contents_of("tiny-index") == before
    before = files_of("tiny-index")
    assert run("index", DATABASE, "--out", "tiny-index", *options)[0] == said
    assert files_of("tiny-index") == before


def test_positions_headings_and_times_are_kept():
    index = PlaceIndex.open(Path("tiny-index"))
    with Path("town/positions.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file) if "broken" not in row["image"]}
    images = [index.image(int(id)) for id in index.ids]
    assert {image.path for image in images} == set(rows)
    for image in images:
        row, position = rows[image.path], image.position
        found = [position.latitude_deg, position.longitude_deg, image.heading_deg, image.timestamp_s]
        assert found == [float(row[name]) for name in ("latitude", "longitude", "heading", "timestamp")]


def test_an_evaluation_counts_as_it_did(run):
    options = (
        "--rerank",
        5,
        "--recall-at",
        "1,2",
        "--codec",
        "binary",
        "--cache",
        "none",
        "--device",
        "cpu",
        "--out",
        "results.json",
    )
    run("evaluate", "town", "--model", "sift-vlad", "--verifier", "magsac,poselib", *options)
    found, expected = json.loads(Path("results.json").read_text(encoding="utf-8")), stored("results.json")
    assert found.keys() >= expected.keys()
    require_agreement(found, {name: value for name, value in expected.items() if name not in PROVENANCE})


def test_a_model_file_and_its_export_describe_alike():
    photo = np.asarray(PIL.Image.open(min(QUERIES.iterdir())).convert("RGB"))
    model, export = (load_extractor(name) for name in ("tiny.safetensors", "tiny-onnx"))
    index = PlaceIndex.open(Path("tiny-index"))
    assert model.spec.fingerprint == export.spec.fingerprint == index.spec.fingerprint
    (one,), (other,) = (extractor.extract([photo]) for extractor in (model, export))
    assert np.allclose(one.global_descriptor, other.global_descriptor, rtol=1e-3, atol=1e-4)
    assert np.allclose(one.local_map, other.local_map, rtol=1e-3, atol=1e-4)


def test_a_network_file_aligns_as_it_did(run):
    options = ("--method", "iterative", "--weights", "iterative.safetensors", "--format", "json", "--device", "cpu")
    found = json.loads(run("align", *sorted(QUERIES.iterdir())[:2], *options)[0])
    expected = stored("align.json")
    require_agreement(found, expected)
    corners = np.array([[0, 0, 1], [159, 0, 1], [159, 119, 1], [0, 119, 1]]).T
    moved, moved_then = (np.array(document["homography"]) @ corners for document in (found, expected))
    assert np.allclose(moved[:2] / moved[2], moved_then[:2] / moved_then[2], atol=0.5)


def test_an_interrupted_run_goes_on(run):
    next(DATABASE.rglob("*broken*")).unlink()
    _, complaint = run(*TRAINING, "--seed", 1, expect=2)
    assert "contains a run with" in complaint
    run(*TRAINING)
    with Path("run/log.csv").open(newline="") as file, (FIXTURES / "answers/log.csv").open(newline="") as whole:
        found, expected = (list(csv.DictReader(source)) for source in (file, whole))
    assert [(row["step"], row["name"]) for row in found] == [(row["step"], row["name"]) for row in expected]
    values, values_then = ([float(row["value"]) for row in rows] for rows in (found, expected))
    assert values == pytest.approx(values_then, rel=0.05, abs=0.01)
    assert load_extractor("run/best.safetensors").spec.dimension == 40
