"""Probabilities through the real entry points: `calibrate`, then `query` and `check`."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from vpr_dhe.index.manifest import lock_for_writing

PLACES, STEP_M = 12, 100


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve places far from each other, each photographed twice, and asked for by a blurred and noisy photo."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(3)
    for place in range(PLACES):
        photo = cv2.resize(random.integers(0, 256, (18, 24, 3), np.uint8), (240, 180), interpolation=cv2.INTER_CUBIC)
        noise = random.normal(0, 25, photo.shape)
        save(root / f"images/test/database/{name(place, 0)}", photo)
        save(root / f"images/test/database/{name(place, 5)}", photo[10:, 14:])
        save(root / f"images/test/queries/{name(place, 9)}", (photo + noise)[:170, :226])
    return root


def name(place: int, shift_m: int) -> str:
    return f"@{500_000 + place * STEP_M + shift_m}@5000000@31@U@@@@@@@@@@.jpg"


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def sealed_index(data, tmp_path_factory) -> Path:
    from vpr_dhe.datasets.standard import read_split
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.index.place_index import PlaceIndex

    folder, extractor = data / "images/test/database", load_extractor("sift-vlad")
    index = PlaceIndex.create(tmp_path_factory.mktemp("indexes") / "index", extractor.spec, folder, codec="float16")
    index.add(read_split(folder).records, extractor)
    return index.folder


@pytest.fixture
def index(sealed_index, tmp_path) -> Path:
    return Path(shutil.copytree(sealed_index, tmp_path / "index"))


@pytest.mark.slow
def test_known_places_become_probable_and_unknown_ones_improbable(run, data, index, tmp_path):
    code, said, stderr = run("calibrate", index, "--data", data, "--rerank", 6)
    assert code == 0, stderr
    assert "calibrated for magsac, top 6, on 12 queries" in said
    assert "expected calibration error" in said
    stored = json.loads((index / "calibrations/magsac.json").read_text())["content"]
    assert (stored["conditions"]["rerank"], stored["examples"], stored["images"]) == (6, 24, 24)

    unknown = tmp_path / "unknown.png"
    save(unknown, np.random.default_rng(9).integers(0, 256, (180, 240, 3)))
    known = data / "images/test/queries" / name(4, 9)
    ask = ("query", index, known, unknown, "--rerank", 6, "--min-probability", 0.5)
    first, second = json.loads(run(*ask, "--format", "json")[1])["queries"]
    assert (first["known"], first["rejected"]) == (True, None)
    assert first["matches"][0]["probability"] > 0.5
    assert [match["probability"] for match in first["matches"][1:]] == [None] * 4
    assert (second["known"], second["matches"]) == (False, [])
    assert second["rejected"]["probability"] < 0.5

    table = run(*ask)[1]
    assert f"{unknown}: unknown place (p = 0." in table
    assert f"{known} (p = 0." in table
    pairs = run(*ask, "--format", "hloc")[1].split("\n")
    assert [line.split()[0] for line in pairs if line] == [str(known)] * 5
    rows = [line.split(",") for line in run(*ask, "--format", "csv")[1].splitlines()]
    assert float(rows[-1][-2]) == pytest.approx(second["rejected"]["probability"], abs=1e-6)

    code, _, stderr = run("query", index, known, "--rerank", 7, "--min-probability", 0.5)
    assert (code, "is not calibrated for this model and verifier with rerank 7" in stderr) == (2, True)
    assert (
        json.loads(run("query", index, known, "--verifier", "poselib", "--rerank", 6, "--format", "json")[1])[
            "queries"
        ][0]["matches"][0]["probability"]
        is None
    )


@pytest.mark.slow
def test_the_method_is_that_of_the_option(run, index):
    for method, has_steps in (("logistic", False), ("isotonic", True)):
        code, _, stderr = run("calibrate", index, "--verifier", "none", "--rerank", 6, "--method", method)
        assert code == 0, stderr
        stored = json.loads((index / "calibrations/none.json").read_text())["content"]
        assert bool(stored["steps"]) == has_steps


@pytest.mark.slow
def test_the_default_calibration_serves_until_the_index_has_its_own(run, data, index, tmp_path):
    unknown = tmp_path / "unknown.png"
    save(unknown, np.random.default_rng(9).integers(0, 256, (180, 240, 3)))
    ask = ("query", index, data / "images/test/queries" / name(4, 9), unknown)

    def answers(*options: object) -> tuple[dict, str]:
        code, said, stderr = run(*ask, "--format", "json", *options)
        assert code == 0, stderr
        return json.loads(said), stderr

    document, stderr = answers()
    assert (document["calibration"], stderr) == ("default", "")
    known, other = document["queries"]
    assert (known["calibration"], known["known"], known["confidence"]) == ("default", None, "sure")
    # A weak answer keeps its matches.
    assert (other["confidence"], len(other["matches"]), other["rejected"]) == ("unknown", 5, None)
    assert known["matches"][0]["probability"] >= 0.9
    assert other["matches"][0]["probability"] < 0.5
    table = run(*ask)[1]
    assert f"{unknown}: probably an unknown place (p = 0." in table

    document, stderr = answers("--min-probability", 0.5)
    assert stderr.count("\n") == 1
    assert stderr.startswith("probabilities are by the default calibration")
    assert [query["known"] for query in document["queries"]] == [True, False]
    assert [query["confidence"] for query in document["queries"]] == ["sure", "unknown"]

    document, stderr = answers("--rerank", 6)
    assert document["calibration"] is None
    assert [query["confidence"] for query in document["queries"]] == [None, None]

    assert run("calibrate", index, "--data", data)[0] == 0
    document, stderr = answers("--min-probability", 0.5)
    assert (document["calibration"], stderr) == ("index", "")
    (index / "calibrations/magsac.json").write_text("{}")
    document, stderr = answers()
    assert document["calibration"] is None
    assert stderr.startswith("answers have no probabilities: ")


def test_a_layout_is_of_labelled_queries(run, index):
    code, _, stderr = run("calibrate", index, "--layout", "folders")
    assert (code, "--layout needs labelled queries; give a data set with --data" in stderr) == (2, True)


def test_an_index_is_calibrated_on_its_own_images(run, data, index):
    done = [run("calibrate", index, "--rerank", 6, "--queries-limit", 8, "--verifier", "none")[1] for _ in range(2)]
    assert "calibrated for none, top 6, on 8 queries" in done[0]
    assert done[0] == done[1]
    query = data / "images/test/queries" / name(2, 9)
    answer = run("query", index, query, "--rerank", 6, "--verifier", "none", "--format", "jsonl")[1]
    assert 0 < json.loads(answer)["matches"][0]["probability"] < 1


def test_damage_is_found_and_mended(run, index, data):
    run("calibrate", index, "--rerank", 6, "--queries-limit", 8, "--verifier", "none")
    path = index / "calibrations/none.json"
    path.write_text(path.read_text().replace("0", "1", 1))
    query = ("query", index, data / "images/test/queries" / name(2, 9), "--rerank", 6, "--verifier", "none")
    code, answer, stderr = run(*query, "--format", "jsonl")
    assert (code, json.loads(answer)["matches"][0]["probability"]) == (0, None)
    assert stderr.count("\n") == 1
    assert stderr.startswith("answers have no probabilities: ")
    assert "checksum; calibrate again with `vpr-dhe calibrate" in stderr
    code, _, stderr = run(*query, "--min-probability", 0.5)
    assert (code, stderr.count("\n"), "calibrate again" in stderr) == (1, 1, True)
    code, _, stderr = run("check", index)
    assert (code, stderr.endswith("then run `vpr-dhe calibrate` to make it again\n")) == (1, True)
    code, _, stderr = run("check", index, "--repair")
    assert (code, stderr) == (0, "dropped calibrations/none.json; run `vpr-dhe calibrate` to make it again\n")
    assert run(*query)[0] == 0


def test_who_writes_to_the_index_is_noticed_before_the_work(run, index, tmp_path):
    with lock_for_writing(index):
        # Data of an unknown layout would be noticed at the first step of it.
        (tmp_path / "none").mkdir()
        code, _, stderr = run("calibrate", index, "--data", tmp_path / "none")
    assert (code, "another process is writing" in stderr) == (1, True)


def test_an_outgrown_calibration_is_said_to_be_one(run, index, data, monkeypatch):
    run("calibrate", index, "--rerank", 6, "--queries-limit", 4, "--verifier", "none")
    monkeypatch.setattr("vpr_dhe.localization.calibration.probability._MAX_GROWTH", 0.5)
    query = data / "images/test/queries" / name(2, 9)
    code, _, stderr = run("query", index, query, "--rerank", 6, "--verifier", "none")
    assert (code, "the calibration is of 24 images, and there are 24 now" in stderr) == (0, True)


def test_what_cannot_be_calibrated_is_said_in_one_sentence(run, data, index, tmp_path):
    for arguments, reason in (
        (("--split", "val"), "--split needs labelled queries"),
        (("--prior", 0), "expected 0 < prior < 1"),
        (("--data", tmp_path / "none"), "does not exist"),
        (("--data", data, "--method", "magic"), "magic"),
        (("--verifier", "dhe"), "needs a homography head"),
    ):
        code, _, stderr = run("calibrate", index, *arguments)
        assert (code, reason in stderr) == (2, True), stderr
    assert not (index / "calibrations").exists()
    moved = data.rename(data.parent / "moved")
    try:
        code, _, stderr = run("calibrate", index)
    finally:
        moved.rename(data)
    assert (code, "are no longer in" in stderr, "--data" in stderr) == (2, True, True)
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(3):
        save(plain / f"{number}.png", np.random.default_rng(number).integers(0, 256, (60, 80, 3)))
    run("index", plain, "--out", tmp_path / "nowhere")
    code, _, stderr = run("calibrate", tmp_path / "nowhere")
    assert (code, "3 of 3 images" in stderr, "have no position" in stderr) == (2, True, True)
    code, _, stderr = run("calibrate", tmp_path / "nowhere", "--data", data)
    assert (code, "another folder for a new index" in stderr) == (2, True)
