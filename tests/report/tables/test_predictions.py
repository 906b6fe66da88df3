"""Predictions read back the way other tools read them."""

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, Settings, evaluate_dataset
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.report.tables.evaluation import evaluation_document, evaluation_table
from vpr_dhe.report.tables.predictions import write_predictions

RANKS = (1, 5)


@pytest.fixture
def evaluated(tmp_path, thumbnail_extractor):
    """Evaluate a made-up data set; `name` says how images are called, and the others where they are."""

    def build(name: str = "{:02d}.jpg", database: str = "database", queries: str = "queries") -> EvaluationResult:
        rng = np.random.default_rng(2)
        for part, count in ((database, 8), (queries, 5)):
            (tmp_path / "data" / part).mkdir(parents=True)
            for number in range(count):
                pixels = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
                PIL.Image.fromarray(pixels).save(tmp_path / "data" / part / name.format(number))
        protocol = Protocol(frame_tolerance=1, database=database, queries=queries)
        dataset = read_places(tmp_path / "data", "folders", protocol)
        index = FeatureCache(tmp_path / "cache").index(dataset.database, thumbnail_extractor)
        return evaluate_dataset(dataset, index, thumbnail_extractor, {}, Settings(RANKS))

    return build


def predicted(result: EvaluationResult) -> list[list[str]]:
    names = [record.path for record in result.dataset.database.records]
    return [[names[prediction.row] for prediction in best] for best in result.retrieval.predictions]


def test_every_format_says_the_same(evaluated, tmp_path):
    result = evaluated()
    assert write_predictions(result, tmp_path / "out") == []
    folder, expected = tmp_path / "out" / "retrieval", predicted(result)
    assert all(len(best) == 5 for best in expected)
    queries = [record.path for record in result.dataset.queries.records]

    for number, best in enumerate(expected):
        text = (folder / "preds" / f"{number:03d}.txt").read_text()
        query, predictions, positives = (part.splitlines()[1:] for part in text.strip().split("\n\n"))
        assert text.startswith("Query path:\n")
        assert [Path(line).name for line in query] == [queries[number]]
        assert [Path(line).name for line in predictions] == best
        assert [int(Path(line).stem) for line in positives] == [n for n in range(8) if abs(n - number) <= 1]
        assert all(Path(line).is_file() for line in (*query, *predictions, *positives))

    asked = zip(queries, expected, strict=True)
    pairs = [(f"queries/{query}", f"database/{name}") for query, best in asked for name in best]
    kapture = (folder / "pairs-kapture.txt").read_text().splitlines()
    assert [tuple(line.split(", ")) for line in kapture if not line.startswith("#")] == pairs
    scored = [line.split(", ") for line in (folder / "pairsfile-kapture.txt").read_text().splitlines()[2:]]
    assert [(query, name) for query, name, _ in scored] == pairs
    assert float(scored[0][2]) >= float(scored[1][2])
    assert [tuple(line.split()) for line in (folder / "pairs-hloc.txt").read_text().splitlines()] == pairs

    # The evaluation of Mapillary SLS reads its file so.
    msls = np.loadtxt(folder / "msls.csv", ndmin=2, dtype=str)
    assert msls[:, 0].tolist() == [Path(query).stem for query in queries]
    assert msls[:, 1:].tolist() == [[Path(name).stem for name in best] for best in expected]


@pytest.mark.parametrize(
    ("database", "queries", "prefixes"),
    [
        ("mapping/sensors/records_data", "query/sensors/records_data", ("", "")),
        ("sensors/records_data/mapping", "sensors/records_data/query", ("query/", "mapping/")),
        ("db", "query/sensors/records_data/night", ("night/", "db/")),
    ],
)
def test_kapture_knows_images_by_their_paths_in_records_data(evaluated, tmp_path, database, queries, prefixes):
    write_predictions(evaluated(database=database, queries=queries), tmp_path / "out")
    rows = (tmp_path / "out/retrieval/pairsfile-kapture.txt").read_text().splitlines()[2:]
    for query, image, _ in (row.split(", ") for row in rows):
        assert (tmp_path / "data" / queries / query.removeprefix(prefixes[0])).is_file()
        assert (tmp_path / "data" / database / image.removeprefix(prefixes[1])).is_file()
        assert (query.startswith(prefixes[0]), image.startswith(prefixes[1])) == (True, True)


def test_tables_tell_what_became_of_each_query(evaluated, tmp_path):
    result = evaluated()
    write_predictions(result, tmp_path / "out")
    with (tmp_path / "out/retrieval/per-query.csv").open() as file:
        rows = list(csv.DictReader(file))
    recall = result.retrieval.scores.recall
    assert sum(row["right"] == "1" for row in rows) / 5 * 100 == recall[1]
    found = [row for row in rows if row["rank_of_first_positive"]]
    assert len(found) / 5 * 100 == recall[5]
    assert [row["best_match"] for row in rows] == [best[0] for best in predicted(result)]
    with (tmp_path / "out/retrieval/precision-recall.csv").open() as file:
        curve = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    assert curve[-1][2] == pytest.approx(recall[1], abs=1e-3)
    assert [row[0] for row in curve] == sorted((row[0] for row in curve), reverse=True)


def test_names_that_a_format_cannot_hold_are_said(evaluated, tmp_path):
    notes = write_predictions(evaluated("photo {:02d}.jpg"), tmp_path / "out")
    assert [note.split(":")[0] for note in notes] == ["pairs-hloc.txt was not written", "msls.csv was not written"]
    assert all("contains a blank" in note for note in notes)
    assert not (tmp_path / "out/retrieval/pairs-hloc.txt").exists()
    assert (tmp_path / "out/retrieval/pairs-kapture.txt").exists()


def test_nothing_is_overwritten(evaluated, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    result = evaluated()
    with pytest.raises(BadInputError, match="is not empty"):
        write_predictions(result, tmp_path / "out")
    with pytest.raises(BadInputError, match="does not exist"):
        write_predictions(result, tmp_path / "no" / "out")


def test_the_document_says_where_figures_come_from(evaluated):
    result = evaluated()
    document = json.loads(json.dumps(evaluation_document(result, provenance()), allow_nan=False))
    assert document["machine"]["cores"] >= 1
    assert document["version"]
    assert document["seed"] == 0
    assert document["denominator"] == "all"
    assert "tolerance 1 frames" in document["protocol"]
    assert document["recall"]["retrieval"] == {str(n): value for n, value in result.retrieval.scores.recall.items()}
    table = evaluation_table(result)
    assert "recall in % of all queries" in table
    assert f"{result.retrieval.scores.recall[1]:.1f}" in table
