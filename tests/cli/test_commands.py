"""Each command through its real entry point, on a small synthetic town.

Most run in the process of the tests, where what they import is there already.
"""

import contextlib
import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.cli import main
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.resources import Resources


def vpr_dhe(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does; a traceback is never an answer."""
    command = [sys.executable, "-m", "vpr_dhe", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == expect, done.stderr
    return done


def call(*arguments: object, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run what the program runs, in this process; None expects any exit code."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["vpr-dhe", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    code = ended.value.code or 0
    assert expect in {None, code}, errors.getvalue()
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:24]
    write_town(folder, town, database, town.query_cameras(5, 1, database), seed=1)
    return folder


@pytest.fixture(scope="module")
def index(town, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("indexes") / "index"
    done = call("index", town / "images/test/database", "--out", folder)
    assert "24 images (24 added, 0 skipped)" in done.stdout
    return folder


def test_query_answers_in_the_documented_json(town, index):
    queries = town / "images/test/queries"
    report = index.parent / "matches.html"
    options = ("--format", "json", "--top-k", 3, "--rerank", 10, "--report", report)
    document = json.loads(vpr_dhe("query", index, queries, *options).stdout)
    assert report.read_text().count("<article") == 5
    assert (document["model"], document["verifier"]) == ("lite-vlad", "magsac")
    assert len(document["queries"]) == 5
    right = 0
    for query in document["queries"]:
        assert query["error"] is None
        assert set(query["timing_ms"]) == {"extract", "search", "rerank"}
        assert [match["rank"] for match in query["matches"]] == [1, 2, 3]
        best = query["matches"][0]
        assert best["inliers"] == best["score"] >= query["matches"][1]["inliers"]
        assert np.array(best["homography"]).shape == (3, 3)
        assert best["homography"][2][2] == 1
        assert best["probability"] is None
        truth = [float(part) for part in Path(query["query"]).name.split("@")[1:3]]
        right += np.hypot(best["position"]["x_m"] - truth[0], best["position"]["y_m"] - truth[1]) <= 25
        estimate = query["position_estimate"]
        assert estimate["position"]["reference"] == "UTM 32U"
        assert np.array(estimate["covariance_m2"]).shape == (2, 2)
        assert "belief" not in query
    assert right >= 4


def test_a_sequence_says_what_all_its_frames_come_to(town, index):
    queries = sorted((town / "images/test/queries").iterdir())[:2]
    options = ("--sequence", "--max-step-m", 500, "--rerank", 5, "--top-k", 2)
    lines = call("query", index, *reversed(queries), *options, "--format", "jsonl").stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        belief = json.loads(line)["belief"]
        assert 0 <= belief["unknown"] <= 1
        assert belief["places"][0]["position"]["reference"] == "UTM 32U"
    table = call("query", index, *queries, *options[:3], "--rerank", 3).stdout
    assert table.count("belief @") == 2
    assert table.count("standard deviation") == 2
    refused = call("query", index, queries[0], "--max-step-m", 5, expect=2)
    assert "add --sequence" in refused.stderr
    refused = call("query", index, queries[0], "--sequence", "--min-probability", 0.5, expect=2)
    assert "leave one of them out" in refused.stderr
    refused = call("query", index, queries[0], "--sequence", "--format", "csv", expect=2)
    assert "table, json and jsonl" in refused.stderr


def test_the_other_formats_say_the_same(town, index, tmp_path):
    photo = sorted((town / "images/test/queries").iterdir())[0]
    line = json.loads(call("query", index, photo, "--format", "jsonl", "--verifier", "none").stdout)
    images = [match["image"] for match in line["matches"]]
    call("query", index, photo, "--format", "csv", "--verifier", "none", "--out", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == images
    pairs = call("query", index, photo, "--format", "hloc", "--verifier", "none").stdout.splitlines()
    assert pairs == [f"{photo} {image}" for image in images]
    (tmp_path / "a photo.jpg").write_bytes(photo.read_bytes())
    refused = call("query", index, tmp_path / "a photo.jpg", "--format", "hloc", "--verifier", "none", expect=2)
    assert "cannot contain blanks" in refused.stderr
    table = call("query", index, photo, "--verifier", "none").stdout
    assert all(image in table for image in images)


def test_evaluate_writes_the_documented_results(town, tmp_path):
    out, predictions = tmp_path / "results.json", tmp_path / "predictions"
    report = tmp_path / "report.html"
    options = ("--rerank", 10, "--recall-at", "1,3", "--out", out, "--predictions", predictions, "--report", report)
    done = call("evaluate", town, "--verifier", "magsac,poselib", "--verifier", "none", *options)
    assert "R@1" in done.stdout
    assert "poselib, top 10" in done.stdout
    assert report.read_text().count("<article") == 5
    document = json.loads(out.read_text())
    assert (document["num_database"], document["num_queries"], document["rerank"]) == (24, 5, 10)
    assert document["recall"]["reranked"]["1"] >= 80
    assert set(document["recall"]["retrieval"]) == {"1", "3"}
    assert [method["name"] for method in document["methods"]] == ["retrieval", "magsac", "poselib"]
    assert set(document["timing_ms"]) == {"extract", "search", "rerank"}
    assert "25 m" in document["protocol"]
    assert document["version"]
    for method in document["methods"]:
        right = 0
        for text in (predictions / method["name"] / "preds").iterdir():
            names = [line.rsplit("/", 1)[-1] for line in text.read_text().splitlines() if "@" in line]
            east, north = ([float(name.split("@")[axis]) for name in names[:2]] for axis in (1, 2))
            right += np.hypot(east[0] - east[1], north[0] - north[1]) <= 25
        assert method["recall"]["1"] == 100 * right / 5
    again = call("evaluate", town, "--rerank", 10, "--recall-at", "1,3")
    assert "features of databases are kept in" in again.stderr
    lines = [next(line for line in run.stdout.splitlines() if line.startswith("magsac")) for run in (done, again)]
    assert lines[0].split()[:-1] == lines[1].split()[:-1]


def test_folders_with_a_table_of_positions_are_evaluated_in_one_command(photos, tmp_path):
    data = tmp_path / "mine"
    (data / "asked").mkdir(parents=True)
    photos.rename(data / "map")
    rows = ["image,latitude,longitude"]
    rows += [f"map/{number}.jpg,{48 + number / 1000},2" for number in range(8)]
    for number in (2, 5):
        (data / "asked" / f"{number}.jpg").write_bytes((data / "map" / f"{number}.jpg").read_bytes())
        rows.append(f"asked/{number}.jpg,{48 + number / 1000 + 1e-4},2")
    (data / "positions.csv").write_text("\n".join(rows) + "\n")
    folders = ("--database", "map", "--queries", "asked", "--positions", data / "positions.csv")
    done = call("evaluate", data, *folders, "--cache", "none")
    assert "8 database images, 2 queries, 2 of them with a positive" in done.stdout
    assert next(line for line in done.stdout.splitlines() if line.startswith("retrieval")).split()[1] == "100.0"
    assert sorted(path.name for path in data.iterdir()) == ["asked", "map", "positions.csv"]


def test_pairs_with_known_homographies_are_evaluated(town, tmp_path):
    out = tmp_path / "pairs.json"
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted((town / "images/test/database").iterdir())[:2]):
        (photos / f"{number}.jpg").write_bytes(path.read_bytes())
    done = call("evaluate-pairs", photos, "--layout", "warps", "--verifier", "magsac,ransac", "--out", out)
    assert "MACE" in done.stdout
    document = json.loads(out.read_text())
    assert document["num_pairs"] == 2
    assert [method["method"] for method in document["methods"]] == ["magsac", "ransac"]
    done = call("evaluate-pairs", photos, "--layout", "warps", "--queries-limit", 1)
    assert "only 1 of 2 pairs" in done.stdout
    assert "No such option" in call("evaluate-pairs", photos, "--layout", "warps", "--radius-m", 3, expect=2).stderr


def test_each_evaluation_names_the_other_for_the_others_data(town, tmp_path):
    for side in ("a", "b"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        PIL.Image.new("RGB", (64, 64)).save(tmp_path / "pairs" / side / "1.png")
    for options in ((), ("--layout", "aligned")):
        done = call("evaluate", tmp_path / "pairs", *options, expect=2)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert "holds image pairs, not places; use `vpr-dhe evaluate-pairs`" in done.stderr
    done = call("evaluate-pairs", town, expect=2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert "matches none of the layouts of image pairs" in done.stderr
    done = call("evaluate-pairs", tmp_path / "pairs", "--verifier", "none", expect=2)
    assert "'none' aligns no image pairs" in done.stderr


def test_align_finds_a_known_homography(town, tmp_path):
    import cv2

    photo = sorted((town / "images/test/database").iterdir())[3]
    image = np.asarray(PIL.Image.open(photo).convert("RGB"))
    truth = np.array([[0.9, 0.05, 12.0], [-0.04, 0.95, 8.0], [1e-4, 5e-5, 1.0]])
    PIL.Image.fromarray(cv2.warpPerspective(image, truth, (320, 240))).save(tmp_path / "b.png")
    done = call("align", photo, tmp_path / "b.png", "--format", "json", "--overlay", tmp_path / "overlay.png")
    document = json.loads(done.stdout)
    corners = np.array([[[0, 0], [319, 0], [319, 239], [0, 239]]], float)
    found, expected = (
        cv2.perspectiveTransform(corners, matrix) for matrix in (np.array(document["homography"]), truth)
    )
    assert np.abs(found - expected).max() < 1.0
    assert document["inliers"] > 50
    assert PIL.Image.open(tmp_path / "overlay.png").size == (320, 240)


def test_align_learns_on_the_pair_within_the_time_given(town, tmp_path):
    photo = sorted((town / "images/test/database").iterdir())[0]
    with PIL.Image.open(photo) as image:
        image.transform(image.size, PIL.Image.Transform.AFFINE, (1, 0, 5, 0, 1, -3)).save(tmp_path / "b.png")
    images = (photo, tmp_path / "b.png", "--format", "json", "--device", "cpu")
    done = call("align", *images, "--method", "weak-alignment", "--max-seconds", 1, expect=None)
    # How far it comes in this time depends on the machine.
    assert done.returncode in {0, 1}, done.stderr
    answer = json.loads(done.stdout)
    assert answer["method"] == "weak-alignment"
    assert 0 <= answer["recognised_share"] <= 1
    done = call("align", *images, "--method", "magsac", "--max-seconds", 1, expect=2)
    assert "magsac has no time limit" in done.stderr
    assert "weak-alignment" in done.stderr


def test_the_time_limit_and_the_weights_reach_the_method(tmp_path, monkeypatch):
    PIL.Image.new("RGB", (100, 100), (120, 120, 120)).save(tmp_path / "a.png")
    given = []

    def load(model, weights, **others) -> Resources:
        given.append((model, list(weights), others["max_seconds"], others["device"]))
        return Resources()

    monkeypatch.setattr("vpr_dhe.verification.alignment.load_resources", load)
    images = [str(tmp_path / "a.png")] * 2
    options = ["--max-seconds", "1.5", "--device", "cpu", "--weights", str(tmp_path / "a.png")]
    monkeypatch.setattr("sys.argv", ["vpr-dhe", "align", *images, *options])
    with pytest.raises(SystemExit):
        main()
    assert given == [(None, [tmp_path / "a.png"], 1.5, "cpu")]
    assert build_estimator("weak-alignment", Resources(max_seconds=1.5)).settings.max_seconds == 1.5


def test_align_of_images_that_share_nothing_exits_with_1(tmp_path):
    for name in ("a.png", "b.png"):
        PIL.Image.new("RGB", (100, 100), (120, 120, 120)).save(tmp_path / name)
    done = call("align", tmp_path / "a.png", tmp_path / "b.png", "--format", "json", expect=1)
    assert json.loads(done.stdout)["homography"] is None
    assert done.stderr.startswith("error: no homography found")


def test_check_tells_sound_from_damaged(index, tmp_path):
    import shutil

    report = json.loads(call("check", index, "--format", "json").stdout)
    assert report.pop("adaptation")["images"] == 24
    assert report.pop("codec")["outdated"] is False
    assert report == {"images": 24, "skipped": 0, "segments": 1, "damaged": [], "model": "lite-vlad"}
    copy = tmp_path / "copy"
    shutil.copytree(index, copy)
    maps = next((copy / "segments").iterdir()) / "local_maps.bin"
    content = bytearray(maps.read_bytes())
    content[1234] ^= 1
    maps.write_bytes(content)
    done = call("check", copy, "--format", "json", expect=1)
    assert json.loads(done.stdout)["damaged"] == [f"segments/{maps.parent.name}/local_maps.bin"]


@pytest.fixture
def photos(town, tmp_path) -> Path:
    """Some photos under plain names."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted((town / "images/test/database").iterdir())[:8]):
        (folder / f"{number}.jpg").write_bytes(path.read_bytes())
    return folder


def test_an_index_follows_its_folder(photos, tmp_path):
    index = tmp_path / "index"
    assert "8 images (8 added, 0 skipped)" in call("index", photos, "--out", index).stdout
    (photos / "8.jpg").write_bytes((photos / "0.jpg").read_bytes())
    (photos / "1.jpg").write_bytes((photos / "2.jpg").read_bytes())
    (photos / "7.jpg").unlink()
    done = call("index", photos, "--out", index)
    assert "9 images (1 added, 1 replaced, 6 unchanged, 0 skipped)" in done.stdout
    assert "1 indexed images are missing, such as 7.jpg; --prune" in done.stderr
    assert "2 images have the same content as another" in done.stderr
    assert "removed 1 missing images" in call("index", photos, "--out", index, "--prune").stderr
    answer = json.loads(call("query", index, photos / "2.jpg", "--format", "jsonl", "--top-k", 8).stdout)
    assert {match["image"] for match in answer["matches"][:2]} == {"1.jpg", "2.jpg"}
    assert "7.jpg" not in {match["image"] for match in answer["matches"]}
    assert "7 images (1 removed)" in call("remove", index, "2.jpg").stdout
    assert "holds no image 2.jpg" in call("remove", index, "2.jpg", expect=2).stderr
    assert "7 images in 1 segments (from 2), 3 removed images freed" in call("compact", index).stdout
    answer = json.loads(call("query", index, photos / "2.jpg", "--format", "jsonl").stdout)
    assert answer["matches"][0]["image"] == "1.jpg"


def test_positions_from_a_table_come_out_with_the_answers(photos, tmp_path):
    index, table = tmp_path / "index", tmp_path / "positions.csv"
    call("index", photos, "--out", index)
    table.write_text("image,latitude,longitude\n0.jpg,48.5,2.25\n1.jpg,48.6,2.35\nnone.jpg,1,1\n")
    done = call("index", photos, "--out", index, "--positions", table)
    assert "8 images (0 added, 2 with new positions, 6 unchanged, 0 skipped)" in done.stdout
    assert "1 rows match no image, such as none.jpg" in done.stderr
    assert "6 images have no row, such as 2.jpg" in done.stderr
    answer = json.loads(call("query", index, photos / "1.jpg", "--format", "jsonl").stdout)
    assert answer["matches"][0]["position"] == {"latitude_deg": 48.6, "longitude_deg": 2.35}


@pytest.mark.parametrize(
    ("codec", "index_type"),
    [("float16", "hnsw"), ("binary", "rabitq"), pytest.param("pca64-int8", "ivf-sq8", marks=pytest.mark.slow)],
)
def test_every_way_of_storing_answers(photos, tmp_path, codec, index_type):
    index = tmp_path / "index"
    call("index", photos, "--out", index, "--codec", codec, "--index-type", index_type)
    sheet = json.loads(call("query", index, photos, "--format", "json", "--top-k", 1).stdout)
    assert [Path(query["query"]).name for query in sheet["queries"]] == [
        query["matches"][0]["image"] for query in sheet["queries"]
    ]
    assert json.loads((index / "manifest.json").read_text())["content"]["codec"]["name"] == codec


@pytest.mark.slow
def test_extraction_on_a_ray_cluster_gives_the_same_answers(photos, tmp_path, monkeypatch):
    # Ray finds every cluster of the machine, those of tests in other processes too.
    monkeypatch.setenv("RAY_ADDRESS", "local")
    alone, together = tmp_path / "alone", tmp_path / "together"
    vpr_dhe("index", photos, "--out", alone, "--codec", "int8")
    done = vpr_dhe("index", photos, "--out", together, "--codec", "int8", "--ray", "auto")
    assert done.stdout == f"{together}: 8 images (8 added, 0 skipped), model lite-vlad\n"
    answers = [
        json.loads(vpr_dhe("query", index, photos / "3.jpg", "--format", "jsonl").stdout)["matches"]
        for index in (alone, together)
    ]
    assert answers[0] == answers[1]
    assert (
        "not the address of a Ray cluster"
        in vpr_dhe("index", photos, "--out", alone, "--ray", "there", expect=2).stderr
    )


def test_repair_lets_an_index_answer_again(photos, tmp_path):
    index = tmp_path / "index"
    call("index", photos, "--out", index)
    maps = next((index / "segments").iterdir()) / "local_maps.bin"
    content = bytearray(maps.read_bytes())
    content[99] ^= 4
    maps.write_bytes(content)
    assert "--repair" in call("check", index, expect=1).stderr
    assert "dropped 8 images" in call("check", index, "--repair").stderr
    assert "8 images (8 added, 0 skipped)" in call("index", photos, "--out", index).stdout
    assert json.loads(call("check", index, "--format", "json").stdout)["damaged"] == []


def test_models_and_verifiers_are_listed():
    assert "sift-vlad" in call("models").stdout
    listed = call("verifiers").stdout
    assert all(name in listed for name in ("magsac", "ransac", "accurate", "poselib", "kornia-ransac", "dhe", "none"))


@pytest.mark.slow
def test_demo_ends_in_a_table_and_a_picture(tmp_path):
    picture = tmp_path / "match.png"
    done = vpr_dhe("demo", "--queries", 4, "--picture", picture, "--keep", tmp_path / "kept")
    assert "R@1" in done.stdout
    assert "right" in done.stdout
    assert PIL.Image.open(picture).size[0] > 600
    assert (tmp_path / "kept" / "index" / "manifest.json").is_file()


def test_usage_errors_exit_with_2():
    vpr_dhe("index", expect=2)
    vpr_dhe("nonsense", expect=2)
