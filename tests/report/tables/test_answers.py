"""Answers as they are printed: positions in both systems, the latitude first and labelled."""

import csv
from pathlib import Path

import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.records import GeoPosition, Localization, MetricPosition, RankedMatch, Timing
from vpr_dhe.report.tables.answer_documents import answer_document
from vpr_dhe.report.tables.answer_formats import LINE_FORMATS, SHEET_FORMATS
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.report.tables.pair_lists import relative_name

FIRST = "query,rank,image,similarity,score,inliers,position_x,position_y,position_reference"
LAST = "error,probability,timestamp_s"


def answer(*positions) -> Answer:
    matches = (
        RankedMatch(rank, f"{rank}.jpg", 0.5, 12.0, None, position) for rank, position in enumerate(positions, 1)
    )
    return Answer("q.jpg", Localization(tuple(matches), Timing(1.0, 1.0, 1.0)))


def rows(answer: Answer) -> list[dict[str, str]]:
    line_format = LINE_FORMATS["csv"]
    return list(csv.DictReader([line_format.header, *line_format.lines(answer)]))


def test_new_columns_stand_beside_the_position():
    header = LINE_FORMATS["csv"].header
    assert header == f"{FIRST},latitude,longitude,easting,northing,zone,{LAST}"
    degrees, utm, local, unknown = rows(
        answer(GeoPosition(49.2, 7.5), MetricPosition(5e5, 5e6, "UTM 32T"), MetricPosition(1.0, 2.0), None)
    )
    assert (degrees["position_x"], degrees["position_y"]) == ("7.5000000", "49.2000000")
    assert (degrees["latitude"], degrees["longitude"], degrees["zone"]) == ("49.2000000", "7.5000000", "32U")
    assert (utm["longitude"], utm["easting"], utm["northing"], utm["zone"]) == (
        "9.0000000",
        "500000.00",
        "5000000.00",
        "32T",
    )
    assert (local["position_x"], local["position_reference"], local["latitude"], local["zone"]) == (
        "1.00",
        "local",
        "",
        "",
    )
    assert unknown["latitude"] == unknown["easting"] == ""
    for failed in (Answer("q.jpg", error="not an image"), answer()):
        [row] = rows(failed)
        assert None not in row.values()
        assert None not in row


def test_keys_stand_beside_the_position():
    degrees, local = answer_document(answer(GeoPosition(49.2, 7.5), MetricPosition(1.0, 2.0)))["matches"]
    assert degrees["position"] == {"latitude_deg": 49.2, "longitude_deg": 7.5}
    assert (degrees["latitude"], degrees["longitude"], degrees["zone"]) == (49.2, 7.5, "32U")
    assert degrees["easting"] == pytest.approx(390_750, abs=1000)
    assert local["position"] == {"x_m": 1.0, "y_m": 2.0, "reference": "local"}
    assert [local[key] for key in ("latitude", "longitude", "easting", "northing", "zone")] == [None] * 5


def test_a_table_labels_the_latitude_and_prints_it_first():
    sheet = AnswerSheet(
        "index",
        "model",
        "none",
        (answer(GeoPosition(49.2, 7.5), MetricPosition(5e5, 5e6, "UTM 32T"), MetricPosition(1.0, 2.0)),),
    )
    table = SHEET_FORMATS["table"](sheet)
    assert "latitude 49.2000000, longitude 7.5000000" in table
    assert "easting 500000.00, northing 5000000.00 (UTM 32T)" in table
    assert "x 1.00, y 2.00 (local)" in table


def test_paths_below_a_folder(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    for path in (Path("a/b/1.jpg"), tmp_path / "a/b/1.jpg", Path("link/b/1.jpg"), Path("a/../a/b/1.jpg")):
        assert relative_name(Path("a"), path) == relative_name(tmp_path / "link", path) == "b/1.jpg"
    with pytest.raises(BadInputError, match="is not in"):
        relative_name(Path("a/b"), Path("a/1.jpg"))
