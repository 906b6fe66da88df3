"""Commands and the library functions that they call: the same results from the same options."""

import json
from pathlib import Path

import numpy as np
import pytest
from recordings import small_frames, video_of

from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibrate import calibrate_index
from vpr_dhe.evaluation.evaluate import evaluate, evaluate_pairs
from vpr_dhe.evaluation.place_evaluation import Settings
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.evaluation.recall import Denominator
from vpr_dhe.index import place_index
from vpr_dhe.index.indexing import index_images
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.recordings.videos import open_video
from vpr_dhe.report.tables.evaluation import evaluation_document
from vpr_dhe.report.tables.indexing import added_summary
from vpr_dhe.report.tables.loops import LOOP_FORMATS
from vpr_dhe.report.tables.pairs import alignment_document
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.loops import find_loops
from vpr_dhe.sequences.recording_stream import recorded_frames
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.verification.alignment import align

TIMES = {"timing_ms", "median_ms", "total_ms", "ms_per_pair"}


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:12]
    write_town(folder, town, database, town.query_cameras(5, 1, database), seed=1)
    return folder


@pytest.fixture
def database(town) -> Path:
    return town / "images/test/database"


def timeless(document):
    """A document without what differs from run to run."""
    if isinstance(document, dict):
        return {key: timeless(value) for key, value in document.items() if key not in TIMES}
    return [timeless(value) for value in document] if isinstance(document, list) else document


def test_index(run, database, tmp_path):
    options = ("--codec", "int8", "--index-type", "hnsw", "--rank-by", "inliers", "--adapt", "off")
    code, stdout, errors = run("index", database, "--out", tmp_path / "a", *options)
    assert code == 0, errors
    report = index_images(database, tmp_path / "b", codec="int8", index_type="hnsw", rank_by="inliers", adapt="off")
    made, index = PlaceIndex.open(tmp_path / "a"), report.index
    assert stdout == f"{tmp_path / 'a'}: 12 images ({added_summary(report.added)}), model {index.spec.model}\n"
    assert made.manifest.settings == index.manifest.settings
    assert [made.image(id) for id in made.ids.tolist()] == [index.image(id) for id in index.ids.tolist()]
    assert made.descriptors(made.ids.tolist()).equal(index.descriptors(index.ids.tolist()))


def test_at_least_one_candidate_is_verified(town):
    with pytest.raises(BadInputError, match="rerank is 0; expected at least 1"):
        evaluate(town, rerank=0, start_progress=lambda name, _: pytest.fail(f"{name} began"))


def test_evaluate(run, town, tmp_path):
    options = ("--verifier", "magsac,none", "--rerank", 4, "--recall-at", "3,1", "--denominator", "with-positive")
    out = tmp_path / "out.json"
    code, _, errors = run("evaluate", town, *options, "--queries-limit", 3, "--codec", "int8", "--out", out)
    assert code == 0, errors
    seen, inspected = [], []
    result = evaluate(
        town,
        verifiers=["magsac", "none"],
        rerank=4,
        ranks=[3, 1],
        denominator="with-positive",
        queries_limit=3,
        codec="int8",
        start_progress=lambda description, total: seen.append((description, total)) or (lambda _: None),
        inspect=lambda *found: inspected.append(found),
    )
    assert timeless(json.loads(out.read_text())) == timeless(
        json.loads(json.dumps(evaluation_document(result, provenance())))
    )
    assert seen == [("database", 12), ("queries", 3)]
    assert inspected[0][0] is result
    assert list(inspected[0][1].verifiers) == ["magsac"]


def test_settings_of_an_evaluation_are_those_given(town):
    result = evaluate(
        town,
        verifiers=["none"],
        ranks=[1],
        rerank=7,
        denominator="with-positive",
        one_per_panorama=True,
        rank_by="inliers",
        stop_early=8.0,
        queries_limit=1,
        codec="float16",
        adapt="off",
    )
    assert result.settings == Settings((1,), 7, Denominator.with_positive, True, "inliers", 8.0)


def test_evaluate_pairs(run, database, tmp_path):
    out = tmp_path / "out.json"
    options = ("--layout", "warps", "--verifier", "ransac", "--pairs-limit", 2, "--out", out)
    code, _, errors = run("evaluate-pairs", database, *options)
    assert code == 0, errors
    result = evaluate_pairs(database, layout="warps", methods=["ransac"], pairs_limit=2)
    assert timeless(json.loads(out.read_text())) == timeless(
        json.loads(json.dumps(alignment_document(result, provenance())))
    )


def test_align(run, database):
    a, b = sorted(database.iterdir())[:2]
    code, stdout, errors = run("align", a, a, "--format", "json", "--method", "poselib")
    assert code == 0, errors
    document, found = json.loads(stdout), align(a, str(a), method="poselib")
    assert (document["inliers"], document["score"]) == (found.inliers, found.score)
    np.testing.assert_allclose(document["homography"], found.homography)
    dense = align(np.zeros((64, 64, 3), np.uint8), b, model="sift-vlad")
    assert dense.inliers == 0


@pytest.mark.parametrize("data", [False, True])
def test_calibrate(run, town, database, tmp_path, data):
    stored = []
    for number in range(2):
        index = tmp_path / str(number)
        assert run("index", database, "--out", index, "--codec", "float16")[0] == 0
        if number:
            report = calibrate_index(
                index,
                data=town if data else None,
                queries_limit=6,
                verifier="none",
                rerank=5,
                prior=0.4,
            )
        else:
            options = ("--verifier", "none", "--rerank", 5, "--prior", 0.4, "--queries-limit", 6)
            code, stdout, errors = run("calibrate", index, *options, *(("--data", town) if data else ()))
            assert code == 0, errors
        stored.append(json.loads((index / "calibrations/none.json").read_text())["content"])
    assert stored[0] == stored[1]
    assert f"on {report.queries} queries" in stdout
    assert f"of {report.calibration.examples} best matches wrong" in stdout


def test_loops(run, tmp_path):
    frames = small_frames(5)
    video = video_of(tmp_path / "walk.mkv", [*frames, *frames])
    options = ("--ignore-seconds", 0.3, "--rerank", 3, "--verifier", "none", "--min-probability", 0.3)
    code, stdout, errors = run("loops", "--video", video, *options, "--index", tmp_path / "way")
    assert (code, "loops among 10 frames" in errors) == (0, True), errors
    remembered: list[int] = []
    with open_video(video) as source:
        named = (
            SequenceFrame(frame.image, frame.timestamp_s, frame.odometry, f"{frame.name}.jpg")
            for frame in recorded_frames(source, Selection())
        )
        found = find_loops(
            named,
            keep_times=False,
            verifier="none",
            rerank=3,
            ignore_seconds=0.3,
            min_probability=0.3,
            remembered=remembered.append,
        )
        lines = [LOOP_FORMATS["jsonl"].line(loop) for loop in found]
    assert lines == stdout.splitlines()
    assert lines
    assert sum(remembered) == 10


def test_loops_tell_of_frames_that_cannot_be_read(tmp_path, database):
    photos = sorted(database.iterdir())[:2]
    (tmp_path / "words.jpg").write_text("these are words")
    skipped = []
    frames = [SequenceFrame(path, name=path.name) for path in (photos[0], tmp_path / "words.jpg", photos[1])]
    found = find_loops(
        frames, images_folder=database, verifier="none", skipped=lambda name, reason: skipped.append((name, reason))
    )
    assert list(found) == []
    assert [name for name, _ in skipped] == ["words.jpg"]
    with pytest.raises(BadInputError, match="--ignore-seconds needs times"):
        find_loops(frames, ignore_seconds=3.0)


def test_what_no_option_allows_is_refused(town, tmp_path):
    for options, message in (
        ({"ranks": [0, 1]}, r"ranks are \[0, 1\]"),
        ({"ranks": []}, "expected whole numbers from 1"),
        ({"denominator": "some"}, "expected all or with-positive"),
        ({"layout": "hpatches"}, "evaluate-pairs"),
    ):
        with pytest.raises(BadInputError, match=message):
            evaluate(town, **options)
    with pytest.raises(BadInputError, match="expected logistic or isotonic"):
        calibrate_index(_empty_index(town, tmp_path), method="magic")


def _empty_index(town: Path, tmp_path: Path) -> Path:
    from vpr_dhe.features.extractor import load_extractor

    folder = town / "images/test/database"
    return place_index.PlaceIndex.create(tmp_path / "index", load_extractor("sift-vlad").spec, folder).folder


def test_a_query_opens_its_index_once(run, database, tmp_path, monkeypatch):
    index, report = tmp_path / "index", tmp_path / "report.html"
    assert run("index", database, "--out", index, "--model", "sift-vlad")[0] == 0
    opened, open_newest = [], place_index.open_newest
    monkeypatch.setattr(
        place_index, "open_newest", lambda *given, **how: opened.append(given) or open_newest(*given, **how)
    )
    photo = sorted(database.iterdir())[0]
    code, _, errors = run("query", index, photo, "--rerank", 2, "--runtime", "torch", "--report", report)
    assert (code, len(opened)) == (0, 1), errors
    code, _, errors = run("query", index, photo, "--runtime", "onnx")
    assert (code, errors.count("\n"), "--runtime onnx supports neural networks" in errors) == (2, 1, True)
    code, _, errors = run("query", index, photo, "--precision", "bf16")
    assert (code, errors.count("\n") <= 2, "is not a network in torch" in errors) == (2, True, True)
