"""The index's own calibration is selected where it can be used, otherwise the default one or none."""

from dataclasses import replace

import pytest

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.index.manifest import CodecInfo
from vpr_dhe.localization.calibration import selection
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.selection import SelectedCalibration, select_calibration

CONDITIONS = Conditions("thumbnail", "magsac", 20)
CALIBRATION = Calibration(CONDITIONS, 25.0, 0.5, 40, 13, 12, -1.0, {"score": 0.1})
DEFAULT = replace(CALIBRATION, intercept=-2.0)


def finding(monkeypatch, own: Calibration | Exception | None, default: Calibration | None = DEFAULT) -> None:
    def read(_folder, _conditions):
        if isinstance(own, Exception):
            raise own
        return own

    monkeypatch.setattr(selection, "read_calibration", read)
    monkeypatch.setattr(selection, "default_calibration", lambda _conditions: default)


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [
        (CALIBRATION, DEFAULT, SelectedCalibration(CALIBRATION, "index")),
        (None, DEFAULT, SelectedCalibration(DEFAULT, "default")),
        (None, None, SelectedCalibration()),
    ],
    ids=["own", "default", "none"],
)
def test_the_own_one_goes_before_the_default_one(monkeypatch, own, default, expected):
    finding(monkeypatch, own, default)
    assert select_calibration("index", CONDITIONS) == expected


@pytest.mark.parametrize(
    ("error", "raised"), [(IndexFormatError("older"), BadInputError), (IndexDamagedError("torn"), IndexDamagedError)]
)
def test_one_that_cannot_be_used_is_told_where_a_probability_is_required(monkeypatch, error, raised):
    finding(monkeypatch, error)
    selected = select_calibration("index", CONDITIONS)
    assert (selected.calibration, selected.source, str(selected.fault)) == (None, None, str(error))
    with pytest.raises(raised, match=str(error)) as caught:
        selected.require(20, "inliers", None)
    # The format of the index itself is right.
    assert type(caught.value) is raised


def test_the_default_one_is_for_any_adaptation_and_codec():
    assert SelectedCalibration(CALIBRATION, "index").change_to(None, None) is None
    adapted = replace(CALIBRATION, conditions=replace(CONDITIONS, adaptation="adapted-1"))
    assert SelectedCalibration(adapted, "index").change_to(None, None) == "adapted to its map"
    assert SelectedCalibration(adapted, "default").change_to(None, None) is None
    recoded = replace(CALIBRATION, conditions=replace(CONDITIONS, codec="int8"))
    assert SelectedCalibration(recoded, "index").change_to(None, CodecInfo("int8", 12)) is None
    other = CodecInfo("binary", 12)
    assert SelectedCalibration(recoded, "index").change_to(None, other) == "compacted with another codec"
    assert SelectedCalibration(recoded, "default").change_to(None, other) is None
