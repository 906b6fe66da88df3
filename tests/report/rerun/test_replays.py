"""Recordings for Rerun, read back by its own reader."""

from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from recordings import small_frames

pytest.importorskip("rerun", reason="no rerun-sdk; pip install vpr-dhe[rerun]")

from rerun.chunk import RrdReader

from vpr_dhe.datasets import read_places
from vpr_dhe.evaluation.place_evaluation import Tools, evaluate_dataset
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.plane import Plane
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition, PositionEstimate, Verification
from vpr_dhe.report.pictures.drawing import side_by_side
from vpr_dhe.report.rerun.answers import replay_of_answers
from vpr_dhe.report.rerun.evaluation import replay_evaluation
from vpr_dhe.report.rerun.ground import Ground
from vpr_dhe.report.rerun.loops import replay_of_loops
from vpr_dhe.report.rerun.recording import BLUE, recorded
from vpr_dhe.report.tables.answers import Answer
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.loops import find_loops
from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.resources import Resources

FRAMES = small_frames(6)


class Read:
    """Rows of a file, by entity."""

    def __init__(self, path: Path) -> None:
        reader = RrdReader(path)
        [entry] = reader.recordings()
        assert entry.application_id == "vpr-dhe"
        assert len(reader.blueprints()) == 1
        self.chunks = reader.stream(store=entry).to_chunks()

    def rows(self, entity: str) -> list[dict]:
        """Rows of an entity, without those that only clear it, in the order of frames."""
        batches = [chunk.to_record_batch() for chunk in self.chunks if chunk.entity_path == f"/{entity}"]
        found = [row for batch in batches for row in batch.to_pylist()]
        shown = [row for row in found if not any(name.startswith("Clear") and value for name, value in row.items())]
        return sorted(shown, key=lambda row: row.get("frame", -1))

    def values(self, entity: str, component: str) -> list:
        """A component of each row of an entity."""
        return [next(value for name, value in row.items() if name.endswith(component)) for row in self.rows(entity)]

    def frames(self, entity: str) -> list[int]:
        return [row["frame"] for row in self.rows(entity)]

    @property
    def entities(self) -> Counter:
        return Counter(chunk.entity_path.removeprefix("/") for chunk in self.chunks)


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("sift-vlad")


@pytest.fixture
def make_index(tmp_path, extractor):
    def make(position_of) -> PlaceIndex:
        (tmp_path / "photos").mkdir()
        for number, pixels in enumerate(FRAMES):
            PIL.Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        index = PlaceIndex.create(tmp_path / "index", extractor.spec, tmp_path / "photos", codec="float16")
        index.add([ImageRecord(f"{n}.png", position_of(n)) for n in range(5)], extractor)
        return index

    return make


def frames_of(numbers) -> list[SequenceFrame]:
    return [SequenceFrame(FRAMES[n], 1_700_000_000.0 + n, name=f"{n}.png") for n in numbers]


def answers_of(index: PlaceIndex, frames) -> list[Answer]:
    sequence = SequenceLocalizer(Localizer.open(index.folder))
    return (
        Answer(one.name, one.localization, one.error, one.belief, one.timestamp_s) for one in sequence.stream(frames)
    )


def test_a_sequence_is_replayed(make_index, tmp_path):
    index = make_index(lambda number: MetricPosition(10.0 * number, 3.0))
    broken = SequenceFrame(tmp_path / "gone.png", 1_700_000_009.0, name="gone.png")
    with replay_of_answers(tmp_path / "a.rrd", index, sequence=True) as replay:
        frames = [*frames_of([1, 2, 3]), broken]
        answers = list(replay.tap_answers(answers_of(index, replay.tap_frames(frames))))
    read = Read(tmp_path / "a.rrd")
    assert read.frames("query/image") == read.frames("match/image") == [0, 1, 2]
    times = [row["time"].timestamp() for row in read.rows("query/image")]
    assert times == [1_700_000_001.0, 1_700_000_002.0, 1_700_000_003.0]
    # North is up on a plan, whose y points down.
    [images] = read.values("map/images", "positions")
    np.testing.assert_allclose(sorted(images), [[10.0 * n, -3.0] for n in range(5)])
    assert [len(line) for line in read.values("map/traverse", "strips")[0]] == [len(read.rows("map/query"))]
    for answer, table, lines in zip(
        answers, read.values("candidates", "text"), read.values("match/inliers", "strips"), strict=False
    ):
        best = answer.localization.matches[0]
        assert f"| 1 | {best.image} |" in table[0]
        assert len(lines) == len(range(0, best.inliers, 1 + best.inliers // 60))
    assert [value for [value] in read.values("belief/unknown", "scalars")] == pytest.approx(
        [answer.belief.unknown for answer in answers[:3]]
    )
    assert len(read.rows("log")) == 4
    assert "gone.png" in read.values("log", "text")[3][0]


def test_degrees_are_shown_on_the_map_of_earth(make_index, tmp_path):
    index = make_index(lambda number: GeoPosition(48.0 + number / 100, 2.0))
    with replay_of_answers(tmp_path / "a.rrd", index, sequence=False) as replay:
        localizer = Localizer.open(index.folder)
        frames = replay.tap_frames(frames_of([3]))
        list(replay.tap_answers(Answer(one.name, localizer.localize(one.read())) for one in frames))
    read = Read(tmp_path / "a.rrd")
    [images], [query] = read.values("map/images", "positions"), read.values("map/query", "positions")
    np.testing.assert_allclose(sorted(images), [[48.0 + n / 100, 2.0] for n in range(5)])
    np.testing.assert_allclose(query, [[48.03, 2.0]], atol=1e-6)
    assert "belief/best" not in read.entities


def test_an_ellipse_has_two_standard_deviations(tmp_path):
    import rerun.blueprint as rrb

    estimate = PositionEstimate(GeoPosition(48.0, 2.0), np.diag([9.0, 25.0]), 3)
    with recorded(tmp_path / "a.rrd", rrb.Vertical()) as recording:
        Ground([estimate.position]).ellipse(recording, "map/query/ellipse", estimate, BLUE)
    [[outline]] = Read(tmp_path / "a.rrd").values("map/query/ellipse", "line_strings")
    metres = Plane(estimate.position).metres([GeoPosition(*point) for point in outline])
    np.testing.assert_allclose(np.abs(metres).max(axis=0), [6.0, 10.0], rtol=1e-3)
    np.testing.assert_allclose((metres**2 / [36.0, 100.0]).sum(axis=1), 1.0, rtol=1e-3)


def test_lines_join_the_points_of_the_picture():
    """A query of 100 x 50 beside a candidate of 50 x 100, both enlarged to 200 on the longer side."""
    query, candidate = np.zeros((50, 100, 3), np.uint8), np.zeros((100, 50, 3), np.uint8)
    points, others = np.array([[10.0, 20.0]]), np.array([[30.0, 40.0]])
    shift = np.array([[1.0, 0, 5], [0, 1, 7], [0, 0, 1]])
    found = side_by_side(query, candidate, Verification(shift, 1.0, points, others), side_px=200)
    assert found.picture.shape[:2] == (200, 200 + 12 + 100)
    np.testing.assert_allclose(found.starts, [[20.0, 40.0]])
    np.testing.assert_allclose(found.ends, [[60.0 + 212, 80.0]])
    np.testing.assert_allclose(found.outline[0], [2 * 5.0 + 212, 2 * 7.0])


@pytest.mark.slow
def test_loops_are_replayed(tmp_path):
    seen = [*range(6), *range(6)]
    frames = [SequenceFrame(FRAMES[n], float(number), name=f"{number}.png") for number, n in enumerate(seen)]
    records = [ImageRecord(f"{n}.png", MetricPosition(float(n % 6), 0.0)) for n in range(12)]
    with replay_of_loops(tmp_path / "a.rrd", records) as replay:
        options = {"ignore_seconds": 2.0, "min_probability": 0.0, "model": "sift-vlad", "verifier": "none"}
        loops = list(replay.tap_loops(find_loops(replay.tap_frames(frames), **options)))
    assert loops
    read = Read(tmp_path / "a.rrd")
    assert read.frames("frame/image") == list(range(12))
    assert [row["time"].total_seconds() for row in read.rows("frame/image")] == [float(n) for n in range(12)]
    number = lambda name: int(name.removesuffix(".png"))  # noqa: E731
    assert read.frames("loops/newest") == read.frames("match/image") == [number(loop.query) for loop in loops]
    [pairs] = read.values("loops/all", "positions")
    assert pairs == [[number(loop.match.image), number(loop.query)] for loop in loops]
    [edges] = read.values("map/loops", "strips")
    assert len(edges) == len(loops)


def test_an_evaluation_is_replayed(tmp_path, extractor):
    town = SyntheticTown(0, streets=1)
    database = town.database_cameras()[:4]
    write_town(tmp_path / "town", town, database, town.query_cameras(2, database=database))
    dataset = read_places(tmp_path / "town")
    index = PlaceIndex.create(tmp_path / "index", extractor.spec, dataset.database.folder, codec="float16")
    index.add(dataset.database.records, extractor)
    verifiers = build_verifiers(["magsac"], Resources(extractor))
    result = evaluate_dataset(dataset, index, extractor, verifiers)
    done: list[int] = []
    replay_evaluation(tmp_path / "a.rrd", result, Tools(index, extractor, verifiers), done.append)
    read = Read(tmp_path / "a.rrd")
    assert sum(done) == 2
    for entity in ("predictions", "map/query", "map/prediction", "match/image", "log"):
        assert read.frames(entity) == [0, 1], entity
    # UTM is shown in degrees.
    [database] = read.values("map/database", "positions")
    assert len(database) == 4
    assert all(51 < latitude < 52 for latitude, _ in database)
    ranks = [value for [value] in read.values("rank/first_right", "scalars")]
    right = [set(rows.tolist()) for rows in dataset.positives]
    firsts = [
        next((rank for rank, one in enumerate(found, 1) if one.row in rows), None)
        for found, rows in zip(result.verifiers[0].predictions, right, strict=True)
    ]
    assert ranks == [rank for rank in firsts if rank is not None]
    marks = ["| right |" in table[0].splitlines()[2] for table in read.values("predictions", "text")]
    assert marks == [rank == 1 for rank in firsts]
