"""Recording of an evaluation, query by query."""

from typing import Any

import numpy as np

from vpr_dhe.errors import ImageError
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult, Tools
from vpr_dhe.evaluation.reverify import reverify
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.records import NOT_VERIFIED, Progress, StrPath
from vpr_dhe.report.rerun.answers import MAX_IMAGES
from vpr_dhe.report.rerun.ground import Ground
from vpr_dhe.report.rerun.recording import BLUE, GREEN, GREY, RED, Recording, recorded
from vpr_dhe.runtime.extras import require_extra
from vpr_dhe.runtime.sampling import evenly_spread

MAX_PICTURES = 200
"""Maximum number of queries with pictures, which are extracted and verified again; all queries have positions."""
_PREDICTIONS = 10


def replay_evaluation(
    path: StrPath, result: EvaluationResult, tools: Tools, progress: Progress = lambda _: None
) -> None:
    """Record the queries of an evaluation, by its first verifier or else by retrieval, to a Rerun file.

    Args:
        path: path of the file.
        result: result of the evaluation.
        tools: tools of the evaluation.
        progress: called with the number of queries just recorded.

    Raises:
        MissingExtraError: without the extra `rerun`.
    """
    require_extra("rerun")
    import rerun.blueprint as rrb

    method = result.verifiers[0] if result.verifiers else result.retrieval
    database, queries = result.dataset.database.records, result.dataset.queries.records
    rows = evenly_spread(len(database), MAX_IMAGES)
    known = [position for row in rows if (position := database[row].position) is not None]
    ground = Ground([*known, *(record.position for record in queries if record.position is not None)])
    with recorded(path, _views(rrb, ground)) as recording:
        ground.points(recording, "map/database", known, GREY, 3.0, static=True)
        pictured = set(evenly_spread(len(queries), MAX_PICTURES).tolist())
        for number in range(len(queries)):
            recording.at(number)
            _add_query(recording, ground, result, method, number)
            if number in pictured:
                _add_pictures(recording, result, method, tools, number)
            progress(1)


def _views(rrb: Any, ground: Ground) -> Any:
    return rrb.Horizontal(
        rrb.Vertical(
            rrb.Spatial2DView(origin="match", name="query and first prediction"),
            rrb.TextDocumentView(origin="predictions", name="predictions"),
        ),
        rrb.Vertical(ground.view("map"), rrb.TimeSeriesView(origin="rank", name="rank of the first right one")),
    )


def _add_query(
    recording: Recording, ground: Ground, result: EvaluationResult, method: MethodResult, number: int
) -> None:
    """Record the position of a query, its predictions, and the rank of the first correct one."""
    record, predictions = result.dataset.queries.records[number], method.predictions[number]
    database, positives = result.dataset.database.records, result.dataset.positives
    right = None if positives is None else np.isin([one.row for one in predictions], positives[number]).tolist()
    marks = [""] * len(predictions) if right is None else ["right" if hit else "wrong" for hit in right]
    rows = [
        (str(rank), database[one.row].path, f"{one.score:.3f}", mark)
        for rank, (one, mark) in enumerate(zip(predictions[:_PREDICTIONS], marks, strict=False), start=1)
    ]
    recording.table("predictions", [("rank", "image", "score", ""), *rows])
    if right is not None and any(right):
        recording.number("rank/first_right", float(right.index(True) + 1))
    first = database[predictions[0].row].position if predictions else None
    colour = BLUE if right is None else GREEN if right[:1] == [True] else RED
    ground.points(recording, "map/query", [record.position], BLUE, 7.0)
    ground.points(recording, "map/prediction", [first], colour, 5.0)
    ends = [at for at in (record.position, first) if at is not None]
    ground.lines(recording, "map/prediction/error", [ends], colour)
    recording.note(f"{record.path}: {marks[0] if marks else 'unread'}")


def _add_pictures(
    recording: Recording, result: EvaluationResult, method: MethodResult, tools: Tools, number: int
) -> None:
    """Record the query and its first prediction, verified again, side by side."""
    dataset, predictions = result.dataset, method.predictions[number]
    recording.clear("match")
    if not predictions:
        return
    row, levels = predictions[0].row, tools.index.manifest.levels
    try:
        query = decode_named(dataset.queries.folder / dataset.queries.records[number].path, levels)
        candidate = decode_named(dataset.database.folder / dataset.database.records[row].path, levels)
    except ImageError as error:
        recording.note(str(error), level="WARN")
        return
    features = tools.extractor.extract([query])[0]
    verified = reverify(result, method, tools, query, features, [row])
    recording.match("match", query, candidate, verified.get(row, NOT_VERIFIED))
