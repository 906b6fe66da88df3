"""Answers as JSON."""

import json
from dataclasses import asdict
from typing import Any

from vpr_dhe.geography.coordinates import coordinates_of
from vpr_dhe.images.view_names import split_view
from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.records import Belief, NearbyImages, Position, PositionEstimate, RankedMatch, Timing, Verification
from vpr_dhe.report.tables.adaptation import adaptation_document
from vpr_dhe.report.tables.answers import Answer, AnswerSheet


def answer_document(answer: Answer) -> dict[str, Any]:
    """JSON object of one query."""
    localization = answer.localization
    return {
        "query": answer.query,
        **({} if answer.timestamp_s is None else {"timestamp_s": answer.timestamp_s}),
        "known": None if localization is None else localization.known,
        "confidence": confidence_of(localization),
        "calibration": None if localization is None else localization.calibration,
        "matches": [_match_document(match) for match in localization.matches] if localization else [],
        "position_estimate": _estimate_document(localization.estimate if localization else None),
        "rejected": _match_document(localization.rejected) if localization and localization.rejected else None,
        "timing_ms": _timing_document(localization.timing if localization else None),
        "error": answer.error,
        **({} if answer.belief is None else {"belief": _belief_document(answer.belief)}),
        **({"blank": True} if localization is not None and localization.blank else {}),
        **({"near": _near_document(localization.nearby)} if localization and localization.nearby else {}),
    }


def _near_document(nearby: NearbyImages) -> dict[str, Any]:
    near = nearby.near
    return {
        **position_document(near.position),
        "within_m": near.within_m,
        "images": nearby.images,
        "unplaced": nearby.unplaced,
    }


def _estimate_document(estimate: PositionEstimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        **position_document(estimate.position),
        "covariance_m2": estimate.covariance_m2.tolist(),
        "semi_axes_m": list(estimate.semi_axes_m),
        "orientation_deg": estimate.orientation_deg,
        "heading_deg": estimate.heading_deg,
        "matches": estimate.matches,
    }


def _belief_document(belief: Belief) -> dict[str, Any]:
    places = [
        {
            "image": place.image,
            "probability": place.probability,
            **position_document(place.position),
        }
        for place in belief.places
    ]
    return {"unknown": belief.unknown, "places": places}


def _timing_document(timing: Timing | None) -> dict[str, float | None]:
    """Milliseconds by stage; null if not timed."""
    if timing is None:
        return {"extract": None, "search": None, "rerank": None}
    return {"extract": timing.extract_ms, "search": timing.search_ms, "rerank": timing.rerank_ms}


def _match_document(match: RankedMatch) -> dict[str, Any]:
    return {
        "rank": match.rank,
        "image": match.image,
        "similarity": match.similarity,
        "score": match.score,
        "inliers": None if match.skipped else match.inliers,
        "similarity_extracted": match.similarity_extracted,
        "evidence": match.evidence,
        "homography": None if match.homography is None else match.homography.tolist(),
        **position_document(match.position),
        "probability": match.probability,
        **details_document(match.verification),
        **_view_document(match),
    }


def _view_document(match: RankedMatch) -> dict[str, Any]:
    """Panorama and direction of a match that is a view of a panorama; empty for others."""
    view = split_view(match.image)
    return {} if view is None else {"panorama": view[0], "yaw_deg": view[1], "heading_deg": match.heading_deg}


def position_document(position: Position | None) -> dict[str, Any]:
    """Position as stored, in degrees and in UTM."""
    return {"position": None if position is None else asdict(position), **coordinates_of(position)._asdict()}


def details_document(verification: Verification | None) -> dict[str, float]:
    """Details of an estimator under their own name; empty without any."""
    details = None if verification is None else verification.details
    return {} if details is None else {details.name: details.value}


def answers_json(sheet: AnswerSheet) -> str:
    """All answers of a run as one document."""
    document = {
        "index": sheet.index,
        "model": sheet.model,
        "verifier": sheet.verifier,
        "rank_by": sheet.rank_by,
        "adaptation": adaptation_document(sheet.adaptation),
        "calibration": sheet.calibration,
        "queries": [answer_document(answer) for answer in sheet.answers],
    }
    return json.dumps(document, indent=2)


def json_line(answer: Answer) -> str:
    """One query as one line of JSON."""
    return json.dumps(answer_document(answer))
