"""`vpr-dhe query --near`."""

import json

import numpy as np


def test_a_query_near_a_position(run, photo_folder, tmp_path):
    rows = [f"{number:02d}.png,{-33 - number / 1000},151.2" for number in range(4)]
    (tmp_path / "positions.csv").write_text("\n".join(["image,latitude,longitude", *rows]))
    index, photo = tmp_path / "index", photo_folder / "03.png"
    options = ("--model", "sift-vlad", "--codec", "float16", "--positions", tmp_path / "positions.csv")
    assert run("index", photo_folder, "--out", index, *options)[0] == 0

    near = ("query", index, photo, "--verifier", "none", "--near", "-33,151.2")
    code, stdout, stderr = run(*near, "--within-m", 250, "--format", "json")
    query = json.loads(stdout)["queries"][0]
    assert (code, {match["image"] for match in query["matches"]}) == (0, {"00.png", "01.png", "02.png"})
    assert "searching 3 images within 250 m of latitude -33, longitude 151.2; 8 images without such" in stderr
    assert (query["near"]["images"], query["near"]["unplaced"], query["near"]["latitude"]) == (3, 8, -33.0)

    report = tmp_path / "report.html"
    nowhere = ("query", index, photo, "--verifier", "none", "--near", "33,-151.2", "--within-m", 250)
    code, stdout, _ = run(*nowhere, "--report", report)
    assert (code, "03.png: unknown place: no image within 250 m of latitude 33" in stdout) == (0, True)
    assert "no image within 250 m" in report.read_text()
    code, stdout, _ = run(*nowhere, "--format", "csv")
    assert (code, len(stdout.splitlines())) == (0, 2)

    for options in ((), ("--within-m", "-5"), ("--within-m", 5, "--sequence"), ("--within-m", 5, "--near", "91,0")):
        code, _, stderr = run(*near, *options)
        assert (code, stderr.count("\n")) == (2, 1)
    assert np.isfinite(query["near"]["easting"])
