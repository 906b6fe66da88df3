"""The standard layout and plain folders, with their ground truth against distances written out."""

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.datasets.standard import record_of
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.records import MetricPosition


def touch_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (20, 20)).save(path)


def standard_name(east: float, north: float, heading: int = 0, zone: str = "31@U") -> str:
    return f"@{east:.2f}@{north:.2f}@{zone}@52.2@0.11@place@@{heading}@@@@@.jpg"


@pytest.fixture
def town(tmp_path) -> Path:
    rng = np.random.default_rng(3)
    for folder, count in (("database", 30), ("queries", 12)):
        for east, north in rng.uniform(0, 120, (count, 2)):
            touch_image(tmp_path / "town/images/test" / folder / standard_name(500_000 + east, 5_000_000 + north))
    return tmp_path / "town"


@pytest.mark.parametrize("radius_m", [25.0, 40.0])
def test_positives_are_the_images_within_the_radius(town, radius_m):
    dataset = read_places(town, protocol=Protocol(radius_m=radius_m))
    assert (len(dataset.database.records), len(dataset.queries.records)) == (30, 12)
    for record, positives in zip(dataset.queries.records, dataset.positives, strict=True):
        x, y = (float(part) for part in record.path.split("@")[1:3])
        expected = [
            row
            for row, other in enumerate(dataset.database.records)
            if math.dist((x, y), [float(part) for part in other.path.split("@")[1:3]]) <= radius_m
        ]
        assert positives.tolist() == expected
    assert f"{radius_m:g} m" in dataset.protocol


def test_the_radius_itself_counts(tmp_path):
    touch_image(tmp_path / "images/test/database" / standard_name(100, 100))
    touch_image(tmp_path / "images/test/queries" / standard_name(125, 100))
    assert read_places(tmp_path).positives[0].tolist() == [0]


def test_names_carry_position_zone_and_heading():
    record = record_of("sub/@302821.33@5787812.30@31@U@52.205429@0.114262@loc0748@@270@@@@@.jpg")
    assert record.position == MetricPosition(302821.33, 5787812.30, "UTM 31U")
    assert record.heading_deg == 270
    assert record_of("@1.5@2.5@.jpg").position == MetricPosition(1.5, 2.5, "UTM")
    for name in ("holiday.jpg", "@home.jpg", "@nan@2@31@U@.jpg", "@1@inf@.jpg"):
        assert record_of(name).position is None


@pytest.mark.parametrize(
    ("field", "date"),
    [
        ("2019", (2019, 1, 1)),
        ("201907", (2019, 7, 1)),
        ("20190731", (2019, 7, 31)),
        ("20190731_23", (2019, 7, 31, 23)),
        ("20190731_2359", (2019, 7, 31, 23, 59)),
        ("20190731_235958", (2019, 7, 31, 23, 59, 58)),
        ("", None),
        ("201913", None),
        ("20190231", None),
        ("2019-07-31", None),
        ("20190731_235", None),
        ("1564617598000", None),
        ("summer", None),
    ],
)
def test_names_carry_the_timestamp(field, date):
    record = record_of(f"@1.00@2.00@31@U@52.2@0.11@pano@03@270@012@001@002@{field}@a note@.jpg")
    assert record.timestamp_s == (datetime(*date, tzinfo=UTC).timestamp() if date else None)
    assert record.heading_deg == 270


@pytest.mark.parametrize("heading", ["nan", "inf", "-inf", "east", ""])
def test_headings_that_are_no_finite_number_are_left_out(heading):
    assert record_of(f"@1@2@31@U@52.2@0.11@pano@@{heading}@@@@@.jpg").heading_deg is None


def test_a_list_beside_a_folder_names_its_images(town):
    folder = town / "images/test/database"
    paths = sorted(path.name for path in folder.iterdir())
    listed = town / "images/test/database_images_paths.txt"
    listed.write_text("\n".join(reversed(paths[:20])) + "\n")
    dataset = read_places(town)
    assert [record.path for record in dataset.database.records] == paths[:20][::-1]
    listed.write_text(f"{paths[0]}\n{paths[1]}\n{paths[0]}\n")
    with pytest.raises(DatasetError, match="is listed 2 times"):
        read_places(town)
    listed.write_text("")
    with pytest.raises(DatasetError, match="database: the split is empty"):
        read_places(town)
    listed.write_text("database/0.jpg\n")
    with pytest.raises(DatasetError, match=r"lists database/0\.jpg, which is not in"):
        read_places(town)


def test_splits_and_folders_can_be_chosen(town, tmp_path):
    (town / "images/test").rename(town / "images/val")
    with pytest.raises(DatasetError, match=r"test does not exist; found val; choose one with --split"):
        read_places(town, "vpr")
    (town / "images/val/queries").rename(town / "images/val/queries_night")
    dataset = read_places(town, protocol=Protocol(split="val", queries="queries_night"))
    assert "val, database and queries_night, within 25 m" in dataset.protocol
    # Some copies leave out the folder `images`.
    (town / "images/val").rename(town / "val")
    (town / "images").rmdir()
    assert len(read_places(town, protocol=Protocol(split="val", queries="queries_night")).queries.records) == 12


@pytest.mark.parametrize("parent", ["images/test", "test", "."])
def test_a_database_may_be_called_a_gallery(town, parent):
    (town / "images/test/database").rename(town / "images/test/gallery")
    root = town / "images" / ("test" if parent == "." else "")
    for protocol in (Protocol(), Protocol(database="gallery")):
        dataset = read_places(town if parent == "images/test" else root, protocol=protocol)
        assert (len(dataset.database.records), dataset.database.folder.name) == (30, "gallery")
        assert "gallery and queries" in dataset.protocol


def test_images_that_look_another_way_can_be_wrong(tmp_path):
    for heading in range(0, 360, 45):
        touch_image(tmp_path / "images/test/database" / standard_name(0, 0, heading))
    for heading in (10, 351):
        touch_image(tmp_path / "images/test/queries" / standard_name(3, 4, heading))
    dataset = read_places(tmp_path, protocol=Protocol(heading_tolerance_deg=35.0))
    headings = [[dataset.database.records[row].heading_deg for row in rows] for rows in dataset.positives]
    assert headings == [[0.0, 45.0], [0.0]]
    assert dataset.protocol == "standard layout, test, within 25 m and 35 degrees of heading"
    touch_image(tmp_path / "images/test/queries/@1.0@2.0@31@U@.jpg")
    with pytest.raises(DatasetError, match="has no heading"):
        read_places(tmp_path, protocol=Protocol(heading_tolerance_deg=35.0))


def test_cutouts_of_one_panorama_are_known_by_their_names(tmp_path):
    for folder in ("database", "queries"):
        for tile in range(3):
            for panorama in ("a", "b"):
                name = f"@1.00@2.00@54@S@@@{panorama}@{tile:02d}@@@@@@@.jpg"
                touch_image(tmp_path / "images/test" / folder / name)
    assert read_places(tmp_path).panoramas.tolist() == [0, 0, 0, 1, 1, 1]


def test_malformed_trees_are_explained(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        read_places(tmp_path / "none")
    with pytest.raises(DatasetError, match="none of the known layouts"):
        read_places(tmp_path)
    with pytest.raises(BadInputError, match="unknown layout"):
        read_places(tmp_path, "pancake")
    touch_image(tmp_path / "images/test/database" / standard_name(0, 0))
    with pytest.raises(DatasetError, match=r"queries does not exist"):
        read_places(tmp_path)
    touch_image(tmp_path / "images/test/queries" / "holiday.jpg")
    with pytest.raises(DatasetError, match=r"holiday\.jpg has no position"):
        read_places(tmp_path)
    (tmp_path / "images/test/queries/holiday.jpg").unlink()
    touch_image(tmp_path / "images/test/queries" / "@north@by@west.jpg")
    with pytest.raises(DatasetError, match=r"west\.jpg has no position.*utm_east"):
        read_places(tmp_path)


def test_positions_of_different_zones_are_not_mixed(tmp_path):
    for zone in ("31@U", "32@T"):
        touch_image(tmp_path / "images/test/database" / standard_name(0, 0, zone=zone))
    # 32U and 32T are bands of one plane; 31 and 32 are not.
    touch_image(tmp_path / "images/test/queries" / standard_name(1, 0, zone="32@U"))
    touch_image(tmp_path / "images/test/queries" / standard_name(2, 0, zone="33@U"))
    assert [rows.tolist() for rows in read_places(tmp_path).positives] == [[1], []]
    touch_image(tmp_path / "images/test/queries" / "@3.0@0.0@.jpg")
    with pytest.raises(DatasetError, match=r"in a UTM zone.*in metres of 'UTM'"):
        read_places(tmp_path)
