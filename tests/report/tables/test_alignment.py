"""Alignments of two images as they are printed."""

import numpy as np

from vpr_dhe.records import NOT_VERIFIED, EstimatorDetails, Verification
from vpr_dhe.report.tables.alignment import homography_document, homography_table
from vpr_dhe.report.tables.verifiers import verifiers_table

SHIFT = np.array([[1.0, 0.0, 3.5], [0.0, 1.0, -2.0], [0.0, 0.0, 1.0]])
POINTS = np.zeros((12, 2))


def test_the_document_has_the_homography_or_null():
    found = Verification(SHIFT, 12.0, POINTS, POINTS, EstimatorDetails("keypoints", 40.0, method="asift"))
    assert homography_document("auto", found, 7.0) == {
        "method": "auto",
        "chosen": "asift",
        "homography": SHIFT.tolist(),
        "inliers": 12,
        "score": 12.0,
        "keypoints": 40.0,
        "timing_ms": 7.0,
    }
    failed = homography_document("magsac", NOT_VERIFIED, 7.0)
    assert (failed["homography"], failed["inliers"], "chosen" in failed) == (None, 0, False)


def test_the_table_has_a_title_and_three_rows():
    found = Verification(SHIFT, 12.0, POINTS, POINTS)
    title, *rows = homography_table("magsac", found, 7.2, "a.jpg", "b.jpg").splitlines()
    assert title == "magsac: 12 inliers, 7 ms; a.jpg to b.jpg"
    assert np.allclose([[float(value) for value in row.split()] for row in rows], SHIFT)


def test_verifiers_end_with_none():
    lines = verifiers_table().splitlines()
    assert lines[2].startswith("magsac ")
    assert lines[-1].split() == ["none", "any", "model", "retrieval", "without", "verification"]
