"""Data that the page draws from."""

from dataclasses import replace

import PIL.Image
import pytest

from vpr_dhe.records import MetricPosition


def test_points_of_inliers_come_on_demand(running):
    photo = (running.folder / "03.png").read_bytes()
    plain, drawn = (
        running.post("/v1/localize", photo, params=params).json()["matches"][0]
        for params in ({}, {"inlier_points": True})
    )
    assert drawn == plain | {"image_size": drawn["image_size"], "inlier_points": drawn["inlier_points"]}
    with PIL.Image.open(running.folder / "03.png") as picture:
        assert tuple(drawn["image_size"]) == picture.size
    assert len(drawn["inlier_points"]) == drawn["inliers"] == 16
    # The photo matches itself.
    for x, y, u, v in drawn["inlier_points"]:
        assert (x, y) == pytest.approx((u, v), abs=0.1)


def test_positions_for_a_map(running):
    assert running.get("/v1/positions").json() == {"images": 12, "positions": []}
    first = running.records()[0]
    running.index.add([replace(first, position=MetricPosition(5e5, 5e6, "UTM 32T"))], running.extractor)
    [found] = running.get("/v1/positions").json()["positions"]
    assert (found["image"], found["position"]["x_m"], found["longitude"]) == (first.path, 5e5, pytest.approx(9.0))
