"""Two folders of the user's own: frames, positions from wherever there are any, and files with the ground truth."""

import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.records import GeoPosition


def touch(path: Path, exif: PIL.Image.Exif | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (20, 20)).save(path, exif=exif or PIL.Image.Exif())


def frames(root: Path, database: list[str], queries: list[str]) -> Path:
    for folder, names in (("database", database), ("queries", queries)):
        for name in names:
            touch(root / folder / name)
    return root


def positives(root: Path, **chosen) -> list[list[str]]:
    dataset = read_places(root, protocol=Protocol(**chosen))
    return [[dataset.database.records[row].path for row in rows] for rows in dataset.positives]


def test_frames_are_ordered_by_their_numbers(tmp_path):
    root = frames(tmp_path, [f"{n}.jpg" for n in range(12)], [f"q{n}.jpg" for n in range(12)])
    found = positives(root, frame_tolerance=1)
    assert found[2] == ["1.jpg", "2.jpg", "3.jpg"]
    assert found[10] == ["9.jpg", "10.jpg", "11.jpg"]
    assert "same place in the sorted folder, tolerance 0 frames" in read_places(root).protocol


def test_a_query_is_the_frame_of_its_name_where_all_have_one(tmp_path):
    root = frames(tmp_path, [f"{n:03d}.png" for n in range(60)], [f"{n:03d}.jpg" for n in range(0, 60, 10)])
    assert positives(root, frame_tolerance=1)[2] == ["019.png", "020.png", "021.png"]
    assert positives(root, frame_tolerance=10)[0] == [f"{n:03d}.png" for n in range(11)]
    assert "same name" in read_places(root, protocol=Protocol(frame_tolerance=1)).protocol


def test_folders_that_nothing_relates_are_not_compared(tmp_path):
    root = frames(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["x.jpg"])
    with pytest.raises(DatasetError, match=r"positives are unknown .* among 3 images .* give --positions"):
        read_places(root)
    assert positives(root, frame_tolerance=1) == [["a.jpg", "b.jpg"]]


def test_a_query_too_many_does_not_shift_the_others(tmp_path):
    root = frames(tmp_path, [f"{n}.jpg" for n in range(10)], [*(f"{n}.jpg" for n in range(1, 10)), "99.jpg"])
    with pytest.raises(DatasetError, match=r"99\.jpg has no image of its name .* 9 of the 10 queries have one"):
        positives(root, frame_tolerance=1)


def test_an_image_is_never_its_own_answer(tmp_path):
    root = frames(tmp_path, ["1.jpg", "2.jpg"], ["1.jpg", "2.jpg"])
    for database in ("queries", "./queries/", "."):
        with pytest.raises(DatasetError, match="must not be its own positive"):
            positives(root, database=database, queries="queries", frame_tolerance=1)


def test_every_nth_query_keeps_its_frame(tmp_path):
    root = frames(tmp_path, [f"{n:03d}.png" for n in range(40)], [f"q{n:03d}.png" for n in range(40)])
    dataset = read_places(root, protocol=Protocol(frame_tolerance=1, query_step=10))
    assert [record.path for record in dataset.queries.records] == ["q000.png", "q010.png", "q020.png", "q030.png"]
    assert dataset.positives[3].tolist() == [29, 30, 31]
    assert "one query for every 10 frames, tolerance 1 frames" in dataset.protocol


def test_queries_that_are_thinned_out_already_keep_their_frames_too(tmp_path):
    # As VPR-Bench lays out Nordland: query k shows frame 10 k, whatever database image has its name.
    root = frames(tmp_path, [f"{n:03d}.png" for n in range(45)], [f"{n:03d}.png" for n in range(5)])
    assert positives(root, frame_tolerance=1, query_step=10)[4] == ["039.png", "040.png", "041.png"]
    with pytest.raises(DatasetError, match=r"5 images and .* 45; with --query-step 7 expected 45 queries, or 7 if"):
        positives(root, query_step=7)


def test_folders_may_have_any_name(tmp_path):
    for name in ("summer", "winter"):
        for number in range(3):
            touch(tmp_path / name / f"{number}.jpg")
    dataset = read_places(tmp_path, protocol=Protocol(database="summer", queries="winter", frame_tolerance=0))
    assert [rows.tolist() for rows in dataset.positives] == [[0], [1], [2]]
    assert "folders summer and winter" in dataset.protocol
    with pytest.raises(DatasetError, match="found summer, winter; name them with --database"):
        read_places(tmp_path, "folders")


def geodesic_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Distance by the local radii of the ellipsoid: another formula, right to a millimetre at these distances."""
    a, e2 = 6378137.0, 0.00669437999014
    latitude = math.radians((one[0] + other[0]) / 2)
    w = 1 - e2 * math.sin(latitude) ** 2
    north = a * (1 - e2) / w**1.5 * math.radians(other[0] - one[0])
    east = a / math.sqrt(w) * math.cos(latitude) * math.radians(other[1] - one[1])
    return math.hypot(north, east)


def test_a_table_of_latitudes_and_longitudes_places_both_folders(tmp_path):
    rng = np.random.default_rng(5)
    root = frames(tmp_path, [f"{n}.jpg" for n in range(30)], [f"{n}.jpg" for n in range(10)])
    places = {
        f"{folder}/{n}.jpg": (48.85 + rng.uniform(0, 0.001), 2.35 + rng.uniform(0, 0.001))
        for folder, count in (("database", 30), ("queries", 10))
        for n in range(count)
    }
    (root / "positions.csv").write_text(
        "image,latitude,longitude\n"
        + "".join(f"{name},{float(lat):.9f},{float(lon):.9f}\n" for name, (lat, lon) in places.items())
    )
    found = positives(root, positions=root / "positions.csv", radius_m=30.0)
    spelled = {"database": "database/", "queries": str(root / "queries")}
    assert positives(root, positions=root / "positions.csv", radius_m=30.0, **spelled) == found
    for n, names in enumerate(sorted(f"{n}.jpg" for n in range(10))):
        here = places[f"queries/{names}"]
        expected = {name for name in places if name.startswith("d") and geodesic_m(here, places[name]) <= 30}
        assert {f"database/{name}" for name in found[n]} == expected
    assert any(found)


def test_positions_from_exif_are_used_where_there_are_any(tmp_path):
    def gps(latitude: float) -> PIL.Image.Exif:
        exif = PIL.Image.Exif()
        exif[0x8825] = {1: "N", 2: (48.0, 30.0, latitude), 3: "E", 4: (2.0, 0.0, 0.0)}
        return exif

    for number in range(4):
        touch(tmp_path / "database" / f"a{number}.jpg", gps(float(number * 10)))
    touch(tmp_path / "queries" / "b.jpg", gps(10.2))
    dataset = read_places(tmp_path)
    assert dataset.positives[0].tolist() == [1]
    assert isinstance(dataset.queries.records[0].position, GeoPosition)
    assert "within 25 m" in dataset.protocol
    touch(tmp_path / "queries" / "c.jpg")
    with pytest.raises(DatasetError, match=r"c\.jpg has no position"):
        read_places(tmp_path)


def test_a_file_of_pairs_says_what_is_right(tmp_path):
    root = frames(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["x.jpg", "y.jpg"])
    (root / "truth.csv").write_text("query,database\nx.jpg,c.jpg\nx.jpg,a.jpg\ny.jpg,b.jpg\n")
    assert positives(root, ground_truth=root / "truth.csv") == [["a.jpg", "c.jpg"], ["b.jpg"]]
    with pytest.raises(BadInputError, match="--frame-tolerance both define the positives; give one"):
        positives(root, ground_truth=root / "truth.csv", frame_tolerance=1)


def test_what_contradicts_itself_is_said(tmp_path):
    root = frames(tmp_path, ["1.jpg", "2.jpg"], ["1.jpg", "2.jpg"])
    with pytest.raises(BadInputError, match="--radius-m compares positions"):
        positives(root, radius_m=10.0, frame_tolerance=1)
    with pytest.raises(DatasetError, match="has no position"):
        positives(root, radius_m=10.0)
    with pytest.raises(BadInputError, match="layout folders has no --split"):
        positives(root, split="val")
    touch(root / "database" / "1.png")
    with pytest.raises(DatasetError, match=r"holds 1\.jpg and 1\.png; images correspond by their order"):
        positives(root)


def test_no_right_answer_at_all_is_an_error(tmp_path):
    touch(tmp_path / "database/@0.0@0.0@31@U@.jpg")
    touch(tmp_path / "queries/@9000.0@0.0@31@U@.jpg")
    with pytest.raises(DatasetError, match="none of the 1 queries has a positive"):
        read_places(tmp_path)
