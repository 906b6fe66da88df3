"""Which match is the rival of the best one."""

from vpr_dhe.localization.calibration.features import CalibrationFeatures, calibration_features
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition, Position, RankedMatch

HERE, NEAR, FAR = (MetricPosition(x, 0.0, "UTM 31U") for x in (0.0, 25.0, 26.0))


def matches(*scored: tuple[float, Position | None]) -> list[RankedMatch]:
    """Matches whose similarity is a hundredth of the score."""
    return [
        RankedMatch(rank, f"{rank}.jpg", score / 100, score, None, position)
        for rank, (score, position) in enumerate(scored, start=1)
    ]


def test_matches_of_the_same_place_are_no_rivals():
    found = calibration_features(matches((90.0, HERE), (80.0, NEAR), (30.0, FAR), (20.0, HERE)), 25.0)
    assert found == CalibrationFeatures(90.0, 0.9, 30.0)


def test_what_cannot_be_compared_is_a_rival():
    elsewhere = (None, GeoPosition(0.0, 0.0), MetricPosition(0.0, 0.0, "UTM 32U"))
    somewhere = MetricPosition(0.0, 0.0, RECONSTRUCTION)
    assert calibration_features(matches((90.0, somewhere), (80.0, somewhere)), 25.0).rival_score == 80.0
    for position in elsewhere:
        assert calibration_features(matches((90.0, HERE), (80.0, position), (30.0, FAR)), 25.0).rival_score == 80.0
    assert calibration_features(matches((90.0, None), (80.0, None), (30.0, None)), 25.0).rival_score == 80.0


def test_where_all_show_one_place_the_last_stands_for_the_rest():
    assert calibration_features(matches((90.0, HERE), (80.0, NEAR), (70.0, HERE)), 25.0).rival_score == 70.0
    alone = calibration_features(matches((90.0, HERE)), 25.0)
    assert (alone.rival_score, alone.inputs["margin"]) == (90.0, 0.0)
