"""`--rank-by` on the commands that rank."""

import json

import pytest

from vpr_dhe import PlaceIndex


@pytest.fixture
def index(run, photo_folder, tmp_path):
    assert run("index", photo_folder, "--out", tmp_path / "index", "--codec", "float16")[0] == 0
    return tmp_path / "index"


def answers(run, index, photo, *options):
    code, out, errors = run("query", index, photo, "--format", "json", "--rerank", 12, *options)
    assert code == 0, errors
    return json.loads(out)


def test_query_ranks_as_the_index_or_as_asked(run, index, photo_folder):
    photo = photo_folder / "03.png"
    by_evidence = answers(run, index, photo)
    assert by_evidence["rank_by"] == "evidence"
    evidence = [match["evidence"] for match in by_evidence["queries"][0]["matches"]]
    assert evidence == sorted(evidence, reverse=True)
    by_inliers = answers(run, index, photo, "--rank-by", "inliers")
    assert by_inliers["rank_by"] == "inliers"
    assert {match["evidence"] for match in by_inliers["queries"][0]["matches"]} == {None}
    assert run("index", photo_folder, "--out", index, "--rank-by", "inliers")[0] == 0
    assert PlaceIndex.open(index).manifest.settings.rank_by == "inliers"
    assert answers(run, index, photo)["queries"][0]["matches"] == by_inliers["queries"][0]["matches"]
    assert answers(run, index, photo, "--rank-by", "evidence")["rank_by"] == "evidence"
    assert run("query", index, photo, "--rank-by", "luck")[0] == 2
