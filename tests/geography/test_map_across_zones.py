"""One street across the border of two UTM zones, for everything that needs a map in metres.

Spots are 15 m apart along 49 N, from 31U to 32U at 6 E; coordinates by an independent implementation of UTM.
"""

import numpy as np

from vpr_dhe.datasets.base import PlaceSplit, positives_within
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.localization.calibration.features import calibration_features
from vpr_dhe.records import ImageRecord, MetricPosition, RankedMatch
from vpr_dhe.sequences.place_map import PlaceMap

STREET = [
    *(MetricPosition(x, y, "UTM 31U") for x, y in ((719391.21, 5431791.98), (719406.21, 5431792.57))),
    *(MetricPosition(x, y, "UTM 32U") for x, y in ((280593.79, 5431792.57), (280608.79, 5431791.98))),
]
RECORDS = tuple(ImageRecord(f"{number}.jpg", position) for number, position in enumerate(STREET))


def test_right_answers_lie_on_both_sides(tmp_path):
    split = PlaceSplit(tmp_path, RECORDS)
    assert [rows.tolist() for rows in positives_within(split, split, 16.0)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]


def test_sequences_move_across():
    points = PlaceMap(list(enumerate(RECORDS))).positions_m()
    np.testing.assert_allclose(np.linalg.norm(np.diff(points, axis=0), axis=1), 15.0, rtol=2e-3)


def test_adaptation_sees_one_map():
    images = MapImages.of(RECORDS)
    assert images.have_positions
    assert [rows.tolist() for rows in images.near(np.arange(4), 16.0)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]


def test_matches_across_the_border_are_no_rivals():
    matches = [
        RankedMatch(rank, f"{rank}.jpg", 0.9, score, None, position)
        for rank, (score, position) in enumerate(
            [(90.0, STREET[1]), (80.0, STREET[2]), (5.0, MetricPosition(5e5, 5e6, "UTM 31U"))], start=1
        )
    ]
    assert calibration_features(matches, 25.0).rival_score == 5.0
