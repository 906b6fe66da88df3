"""`vpr-dhe query --format geojson|gpx|tum`."""

import json


def test_positions_for_maps_and_trajectories(run, photo_folder, tmp_path):
    rows = [f"{number:02d}.png,{-33 - number / 1000},151.2,{1000 + number}" for number in range(11)]
    table = tmp_path / "positions.csv"
    table.write_text("\n".join(["image,latitude,longitude,timestamp", *rows, "sub/11.png,-33.5,151.2,1011"]))
    index = tmp_path / "index"
    options = ("--model", "sift-vlad", "--codec", "float16")
    assert run("index", photo_folder, "--out", index, *options, "--positions", table)[0] == 0
    ask = ("query", index, photo_folder, "--verifier", "none")

    code, stdout, _ = run(*ask, "--format", "geojson")
    features = json.loads(stdout)["features"]
    assert (code, len(features)) == (0, 12)
    assert features[3]["geometry"]["coordinates"] == [151.2, -33.003]

    (tmp_path / "way.gpx").write_text("")
    code, _, _ = run(*ask, "--out", tmp_path / "way.gpx")
    assert (code, (tmp_path / "way.gpx").read_text().count("<wpt lat=")) == (0, 12)

    code, _, stderr = run(*ask, "--format", "tum")
    assert (code, "--times" in stderr) == (2, True)
    code, stdout, _ = run(*ask, "--times", table, "--sequence", "--format", "tum")
    lines = [line for line in stdout.splitlines() if not line.startswith("#")]
    assert (code, {len(line.split()) for line in lines}) == (0, {8})

    local = tmp_path / "local.csv"
    local.write_text("image,x,y\n03.png,1.0,2.0\n")
    for name, positions in (("local", ("--positions", local)), ("none", ())):
        assert run("index", photo_folder, "--out", tmp_path / name, *options, *positions)[0] == 0
        code, _, stderr = run("query", tmp_path / name, photo_folder, "--verifier", "none", "--format", "gpx")
        assert (code, "--format csv" in stderr) == (2, True)
    timed = (photo_folder, "--times", table, "--verifier", "none", "--format", "tum")
    assert run("query", tmp_path / "none", *timed)[0] == 2
    code, stdout, stderr = run("query", tmp_path / "local", *timed)
    assert (code, "left out" in stderr, len(stdout.splitlines()) > 1) == (0, True, True)


def test_an_interruption_leaves_an_earlier_document(run, photo_folder, tmp_path, monkeypatch):
    assert run("index", photo_folder, "--out", tmp_path / "index", "--model", "sift-vlad", "--codec", "float16")[0] == 0
    earlier = tmp_path / "answers.json"
    earlier.write_text("earlier answers")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vpr_dhe.localization.localizer.Localizer.localize", interrupt)
    assert run("query", tmp_path / "index", photo_folder, "--verifier", "none", "--out", earlier)[0] != 0
    assert earlier.read_text() == "earlier answers"


def test_a_file_that_may_not_be_written_is_refused_before_the_work(run, photo_folder, tmp_path, monkeypatch):
    (tmp_path / "index").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)  # a superuser may write everywhere
    code, _, stderr = run("query", tmp_path / "index", photo_folder, "--out", tmp_path / "answers.json")
    assert (code, "is not writable; give another file" in stderr) == (2, True)
