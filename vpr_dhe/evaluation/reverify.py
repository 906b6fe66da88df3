"""Verification of a few queries of an evaluation again, which keeps no homographies."""

from collections.abc import Sequence

from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult, Tools
from vpr_dhe.localization.candidate_maps import verify_images
from vpr_dhe.records import Features, Image, Verification


def reverify(
    result: EvaluationResult, method: MethodResult, tools: Tools, image: Image, features: Features, rows: Sequence[int]
) -> dict[int, Verification]:
    """Repeat the verification of a query against rows of the database; empty for retrieval alone."""
    verifier = tools.verifiers.get(method.name)
    if verifier is None:
        return {}
    ids = indexed_rows(result, tools, rows)
    found = verify_images(tools.index.snapshot, verifier, image, features, list(ids.values()))
    return {row: found[id] for row, id in ids.items()}


def indexed_rows(result: EvaluationResult, tools: Tools, rows: Sequence[int]) -> dict[int, int]:
    """Index ids by row of the database; unreadable images have none."""
    records = result.dataset.database.records
    found = {row: tools.index.find(records[row].path) for row in rows}
    return {row: id for row, id in found.items() if id is not None}
