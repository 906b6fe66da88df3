"""Data for the drawings of the web page: positions of the map, and inliers of a match."""

from typing import Any

import numpy as np

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import RankedMatch
from vpr_dhe.report.tables.answer_documents import position_document
from vpr_dhe.runtime.sampling import evenly_spread

_MAX_POSITIONS = 3000
_MAX_INLIERS = 60


def positions_document(snapshot: Snapshot) -> dict[str, Any]:
    """Positions of the indexed images, evenly sampled, as in answers."""
    chosen = snapshot.ids[evenly_spread(len(snapshot), _MAX_POSITIONS)]
    records = [snapshot.image(int(id)) for id in chosen]
    return {
        "images": len(snapshot),
        "positions": [
            {"image": record.path, **position_document(record.position)}
            for record in records
            if record.position is not None
        ],
    }


def inliers_document(snapshot: Snapshot, match: RankedMatch) -> dict[str, Any]:
    """Inliers of a match, evenly sampled, as x and y in the query and in the database image, and the image's size.

    `image_size` is null if the image was removed meanwhile.
    """
    try:
        size = None if match.id is None else list(snapshot.frame(match.id).image_size)
    except BadInputError:
        size = None
    if match.verification is None:
        return {"image_size": size, "inlier_points": []}
    shown = evenly_spread(match.inliers, _MAX_INLIERS)
    points = np.hstack([match.verification.query_points[shown], match.verification.candidate_points[shown]])
    return {"image_size": size, "inlier_points": np.round(points, 1).tolist()}
