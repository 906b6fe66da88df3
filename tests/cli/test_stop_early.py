"""`--stop-early` on the commands that verify."""

import json

import numpy as np
import pytest


@pytest.fixture
def index(run, photo_folder, tmp_path):
    assert run("index", photo_folder, "--out", tmp_path / "index", "--codec", "float16")[0] == 0
    return tmp_path / "index"


def matches(run, index, photo, *options):
    # Evidence is relative to the candidates that were verified, the number of inliers is not.
    fixed = ("--format", "json", "--rank-by", "inliers", "--rerank", 12, "--top-k", 12)
    code, out, errors = run("query", index, photo, *fixed, *options)
    assert code == 0, errors
    return json.loads(out)["queries"][0]["matches"]


def test_query_stops_early_and_says_what_it_did_not_verify(run, index, photo_folder):
    photo = photo_folder / "03.png"
    everything, stopped = matches(run, index, photo), matches(run, index, photo, "--stop-early", 8)
    assert all(isinstance(match["inliers"], int) for match in everything)
    assert [match["inliers"] is None for match in stopped] == [False] * 10 + [True] * 2
    assert stopped[0] == everything[0]
    seen = {match["image"] for match in stopped[:10]}
    assert [match["image"] for match in stopped[:10]] == [one["image"] for one in everything if one["image"] in seen]
    # No margin is reached, and nothing is verified beyond --rerank.
    assert matches(run, index, photo, "--stop-early", 1000) == everything
    assert [one["inliers"] is None for one in matches(run, index, photo, "--rerank", 4)] == [False] * 4 + [True] * 8


def test_bad_margins_and_sequences_are_refused_in_a_sentence(run, index, photo_folder):
    code, _, errors = run("query", index, photo_folder / "03.png", "--stop-early", 0)
    assert (code, errors.count("\n")) == (2, 1)
    assert "expected a margin in standard deviations above 0" in errors
    code, _, errors = run("query", index, photo_folder, "--sequence", "--stop-early", 8)
    assert (code, errors.count("\n")) == (2, 1)
    assert "needs all candidates verified" in errors


@pytest.mark.slow
def test_a_calibration_is_for_one_margin(run, index, photo_folder, tmp_path):
    rows = [
        "image,x_m,y_m",
        *(
            f"{path.relative_to(photo_folder)},{500 * n},0"
            for n, path in enumerate(sorted(photo_folder.rglob("*.png")))
        ),
    ]
    (tmp_path / "positions.csv").write_text("\n".join(rows))
    code, _, errors = run("index", photo_folder, "--out", index, "--positions", tmp_path / "positions.csv")
    assert code == 0, errors
    code, _, errors = run("calibrate", index, "--rerank", 11, "--stop-early", 8)
    assert code == 0, errors
    photo = photo_folder / "03.png"
    asked = ("query", index, photo, "--rerank", 11, "--min-probability", 0.1, "--format", "json")
    code, _, errors = run(*asked)
    assert (code, errors.count("\n")) == (2, 1)
    assert "not calibrated" in errors
    code, out, errors = run(*asked, "--stop-early", 8)
    assert code == 0, errors
    assert json.loads(out)["queries"][0]["matches"][0]["probability"] > 0.5
    code, _, errors = run(*asked, "--stop-early", 5)
    assert code == 2
    assert "stopped early at a margin of 5" in errors


@pytest.mark.slow
def test_evaluate_reports_the_early_stop_beside_all_candidates(run, photo_folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    photo_folder.rename(data / "database")
    (data / "queries").mkdir()
    for name in ("01.png", "05.png"):
        (data / "queries" / name).write_bytes((data / "database" / name).read_bytes())
    options = ("--layout", "folders", "--frame-tolerance", 0, "--rerank", 12, "--recall-at", "1,5", "--cache", "none")
    out = tmp_path / "out.json"
    code, table, errors = run(
        "evaluate", data, *options, "--stop-early", 8, "--out", out, "--report", tmp_path / "r.html"
    )
    assert code == 0, errors
    document = json.loads(out.read_text())
    (retrieval, magsac) = document["methods"]
    assert (document["stop_early"], retrieval["early_stop"]) == (8.0, None)
    stop = magsac["early_stop"]
    assert stop["share_verified"] == pytest.approx(100 * 10 / 12)
    assert stop["recall"] == magsac["recall"] == {"1": 100.0, "5": 100.0}
    assert np.isfinite([stop["median_ms"], stop["spared_ms"]]).all()
    for text in (table, (tmp_path / "r.html").read_text()):
        assert "magsac, top 12, early stop" in text
        assert "magsac with an early stop at a margin of 8: 83 % of the candidates verified" in text
    code, table, _ = run("evaluate", data, *options, "--out", out)
    assert "early stop" not in table
    assert json.loads(out.read_text())["methods"][1]["early_stop"] is None
    assert run("evaluate", data, *options, "--stop-early", -2)[0] == 2
