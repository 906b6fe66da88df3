"""Homography between two images, as a table and as a JSON document."""

from typing import Any

from vpr_dhe.records import StrPath, Verification
from vpr_dhe.report.tables.answer_documents import details_document


def homography_document(method: str, found: Verification, elapsed_ms: float) -> dict[str, Any]:
    """JSON object of an alignment by a method of `align`; the homography is null if there is none."""
    chosen = _chosen_method(found)
    return {
        "method": method,
        **({"chosen": chosen} if chosen else {}),
        "homography": None if found.homography is None else found.homography.tolist(),
        "inliers": found.inliers,
        "score": found.score,
        **details_document(found),
        "timing_ms": elapsed_ms,
    }


def homography_table(method: str, found: Verification, elapsed_ms: float, image_a: StrPath, image_b: StrPath) -> str:
    """Title line, and the three rows of the homography."""
    assert found.homography is not None, "a failed alignment has no table"
    chosen = _chosen_method(found)
    by = f", by {chosen}" if chosen else ""
    title = f"{method}{by}: {found.inliers} inliers, {elapsed_ms:.0f} ms; {image_a} to {image_b}"
    rows = ("  ".join(f"{value:14.8g}" for value in row) for row in found.homography)
    return "\n".join([title, *rows])


def _chosen_method(found: Verification) -> str | None:
    """Method that `auto` has chosen; None for other methods."""
    return None if found.details is None else found.details.method
