"""Kapture data sets: camera centres against SciPy's rotations, and ground truth against distances written out."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy.spatial.transform import Rotation

from vpr_dhe.datasets.base import PlaceDataset, Protocol
from vpr_dhe.datasets.kapture import LAYOUT, read_kapture
from vpr_dhe.errors import DatasetError
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition


def write(file: Path, lines: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["# kapture format: 1.1", *lines, ""]), encoding="utf-8")


def write_photos(kapture: Path, photos: Sequence[tuple[int, str, str]]) -> None:
    write(kapture / "sensors/records_camera.txt", [f"{time:04d}, {device}, {path}" for time, device, path in photos])
    for _, _, path in photos:
        image = kapture / "sensors/records_data" / path
        image.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (20, 20)).save(image)


def pose_text(rotation: Rotation, translation: np.ndarray, scale: float = 1.0) -> str:
    x, y, z, w = rotation.as_quat() * scale
    return ", ".join(repr(float(number)) for number in (w, x, y, z, *translation))


def pose_at(centre: np.ndarray, rotation: Rotation, scale: float = 1.0) -> str:
    """The pose, from the world to the device, of a device at `centre`."""
    return pose_text(rotation, -rotation.apply(centre), scale)


def side(kapture: Path, centres: np.ndarray, rotations: Rotation) -> None:
    write_photos(kapture, [(number, "cam", f"sub/{number}.jpg") for number in range(len(centres))])
    lines = [
        # The sign and the length of a quaternion mean nothing.
        f"   {number}, cam, {pose_at(centre, rotation, -2.5 if number % 2 else 1.0)}"
        for number, (centre, rotation) in enumerate(zip(centres, rotations, strict=True))
    ]
    write(kapture / "sensors/trajectories.txt", ["# timestamp, device_id, qw, qx, qy, qz, tx, ty, tz", "", *lines])


@pytest.fixture
def world(tmp_path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A data set of two kaptures, and the centres of its database and query cameras."""
    rng = np.random.default_rng(11)
    near, asked = rng.uniform(-50, 50, (30, 3)), rng.uniform(-50, 50, (12, 3))
    side(tmp_path / "town/mapping", near, Rotation.random(30, random_state=1))
    side(tmp_path / "town/query", asked, Rotation.random(12, random_state=2))
    return tmp_path / "town", near, asked


def positions_of(dataset: PlaceDataset) -> np.ndarray:
    return np.array([(record.position.x_m, record.position.y_m) for record in dataset.database.records])


@pytest.mark.parametrize("radius", [25.0, 40.0])
def test_right_is_what_is_near_in_space(world, radius):
    root, near, asked = world
    dataset = LAYOUT.read(root, Protocol(radius_m=radius))
    assert [record.path for record in dataset.queries.records] == [f"sub/{number}.jpg" for number in range(12)]
    assert dataset.database.folder == root / "mapping/sensors/records_data"
    expected = [[row for row, point in enumerate(near) if math.dist(point, query) <= radius] for query in asked]
    assert [rows.tolist() for rows in dataset.positives] == expected
    assert positions_of(dataset) == pytest.approx(near[:, :2])
    assert dataset.database.records[0].timestamp_s is None
    assert dataset.protocol == f"kapture, mapping and query, by poses, within {radius:g} units of the world"


def test_the_layout_is_recognised_and_names_may_be_chosen(world):
    root, _, _ = world
    assert LAYOUT.recognises(root)
    (root / "mapping").rename(root / "training")
    assert not LAYOUT.recognises(root)
    dataset = LAYOUT.read(root, Protocol(database="training"))
    assert dataset.protocol.startswith("kapture, training and query, by poses, within 25 units")
    with pytest.raises(
        DatasetError, match=r"mapping/sensors/records_camera\.txt does not exist; the kaptures in .* are "
    ):
        read_kapture(root)
    with pytest.raises(DatasetError, match=r"there is no kapture in"):
        read_kapture(root / "query")


def test_rigs_carry_cameras_and_other_rigs(tmp_path):
    rng = np.random.default_rng(4)
    rotations = Rotation.random(5, random_state=3)
    vehicle, arm, camera = rng.uniform(-9, 9, (3, 3))
    side(tmp_path / "query", np.zeros((1, 3)), rotations[:1])
    mapping = tmp_path / "mapping"
    write_photos(mapping, [(7, "own", "own.jpg"), (7, "left", "left.jpg"), (8, "left", "later.jpg")])
    own = rng.uniform(-9, 9, 3)
    write(
        mapping / "sensors/trajectories.txt",
        [f"7, vehicle, {pose_at(vehicle, rotations[1])}", f"7, own, {pose_at(own, rotations[4])}"],
    )
    write(
        mapping / "sensors/rigs.txt",
        [
            f"arm, left, {pose_at(camera, rotations[2])}",
            f"vehicle, arm, {pose_at(arm, rotations[3])}",
            f"vehicle, own, {pose_text(rotations[0], own)}",
            f"left, vehicle, {pose_text(rotations[0], own)}",  # round in a circle
        ],
    )
    dataset = read_kapture(tmp_path, radius=100.0)
    # A point of the arm is a point of the vehicle, turned back and moved; so is one of the vehicle in the world.
    on_vehicle = arm + rotations[3].inv().apply(camera)
    left = vehicle + rotations[1].inv().apply(on_vehicle)
    assert positions_of(dataset) == pytest.approx(np.array([own[:2], left[:2]]))
    assert dataset.protocol.endswith(", 1 of 3 database images without a position left out")


@pytest.mark.parametrize("pose", [", , , , 1, 2, 3", "1, 0, 0, 0, , , ", ", , , , , , "])
def test_poses_may_be_partial(world, pose):
    root, near, asked = world
    for kapture in ("mapping", "query"):
        file = root / kapture / "sensors/trajectories.txt"
        lines = file.read_text().splitlines()
        write(file, [*lines[:5], f"2, cam, {pose}", *lines[6:]])
    dataset = read_kapture(root)
    assert len(dataset.database.records) == 29
    assert [record.path for record in dataset.queries.records][:3] == ["sub/0.jpg", "sub/1.jpg", "sub/3.jpg"]
    kept = np.delete(near, 2, axis=0)
    expected = [[row for row, point in enumerate(kept) if math.dist(point, query) <= 25] for query in asked]
    assert [rows.tolist() for rows in dataset.positives] == expected[:2] + expected[3:]
    assert dataset.protocol.endswith(", 1 of 30 database images and 1 of 12 queries without a position left out")


def test_queries_without_poses_have_no_public_ground_truth(world):
    root, near, _ = world
    (root / "query/sensors/trajectories.txt").unlink()
    dataset = read_kapture(root)
    assert dataset.positives is None
    assert (
        dataset.protocol == "kapture, mapping and query, by poses, queries without positions, ground truth not public"
    )
    assert positions_of(dataset) == pytest.approx(near[:, :2])
    assert {record.position for record in dataset.queries.records} == {None}
    (root / "mapping/sensors/trajectories.txt").unlink()
    with pytest.raises(DatasetError, match=r"none of the 30 database images has a position .* such as sub/0\.jpg"):
        read_kapture(root)


def write_receiver(kapture: Path, rows: Sequence[str], system: str = "EPSG:4326") -> None:
    write(kapture / "sensors/records_gnss.txt", rows)
    write(kapture / "sensors/sensors.txt", [f"gps, , gnss, {system}", "cam, , camera, UNKNOWN_CAMERA, 20, 20"])


def test_receivers_give_positions_where_poses_do_not(world):
    root, _, _ = world
    # A degree of latitude is 111 km: 20 m lie between rows of the database, and queries beside each third.
    write_receiver(root / "mapping", [f"{n}, gps, 13.4, {52.5 + n * 20 / 111_267:.9f}, 30, 0, 5" for n in range(30)])
    write_receiver(root / "query", [f"{n}, gps, 13.4, {52.5 + n * 60 / 111_267:.9f}, 90, 0, 0" for n in range(10)])
    assert "by poses" in read_kapture(root).protocol
    (root / "query/sensors/trajectories.txt").unlink()
    dataset = read_kapture(root, radius=25.0)
    assert dataset.database.records[0].position == GeoPosition(52.5, 13.4)
    expected = [[row for row in range(30) if abs(20 * row - 60 * query) <= 25] for query in range(10)]
    assert [rows.tolist() for rows in dataset.positives] == expected
    assert dataset.protocol == (
        "kapture, mapping and query, by GNSS, within 25 m, 2 of 12 queries without a position left out"
    )


def test_the_receiver_of_the_camera_itself_counts_before_others(tmp_path):
    for kapture in ("mapping", "query"):
        write_photos(tmp_path / kapture, [(1, "cam", "a.jpg"), (2, "cam", "b.jpg")])
        rows = ["1, gps, 8, 50, 0, 0, 0", "1, GPS_cam, 9, 51, 0, 0, 0", "2, gps, 10, 52, 0, 0, 0"]
        write_receiver(tmp_path / kapture, rows, "")
    records = read_kapture(tmp_path).queries.records
    assert [record.position for record in records] == [GeoPosition(51.0, 9.0), GeoPosition(52.0, 10.0)]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("records_camera.txt", "0, cam", r"line 2: found 2 values; expected timestamp, device_id, image_path"),
        ("records_camera.txt", "0, cam, none.jpg", r"line 2: .*records_data/none\.jpg does not exist"),
        ("records_camera.txt", "noon, cam, sub/0.jpg", r"line 2: found the timestamp 'noon'; expected a whole number"),
        ("trajectories.txt", "0, cam, 1, 0, 0, 0, 0, 0", r"line 2: found 8 values; expected timestamp, device_id, qw"),
        (
            "trajectories.txt",
            "0, cam, 0, 0, 0, 0, 1, 2, 3",
            r"line 2: found the pose 0, .* a quaternion other than zero",
        ),
        (
            "trajectories.txt",
            "0, cam, 1, 0, 0, 0, nan, 2, 3",
            r"line 2: found .* nan, 2, 3; expected finite numbers in",
        ),
        ("trajectories.txt", "0, cam, 1, 0, 0, w, 1, 2, 3", r"line 2: found .*; expected finite numbers"),
        ("trajectories.txt", "x, cam, 1, 0, 0, 0, 1, 2, 3", r"line 2: found the timestamp 'x'"),
        ("rigs.txt", "rig, cam, 1, 0, 0, 0, 0, 0, inf", r"line 2: .*; expected finite numbers"),
        ("rigs.txt", "rig, cam", r"line 2: found 2 values; expected rig_id"),
        ("records_gnss.txt", "0, gps, 13, 52", r"line 2: found 4 values; expected timestamp, device_id, x, y, z"),
        ("records_gnss.txt", "0, gps, 13, nan, 0, 0, 0", r"line 2: found 'nan'; expected degrees from -90 to 90"),
        ("records_gnss.txt", "0, gps, east, 0, 0, 0, 0", r"line 2: found 'east'; expected degrees from -180 to 180"),
    ],
)
def test_mistakes_are_explained_with_their_line(world, file, line, message):
    root, _, _ = world
    write(root / "mapping/sensors" / file, [line])
    with pytest.raises(DatasetError, match=message) as caught:
        read_kapture(root)
    assert f"mapping/sensors/{file}, " in str(caught.value)


def test_contradictions_are_explained(world):
    root, _, _ = world
    sensors = root / "mapping/sensors"
    write_receiver(root / "mapping", ["0, gps, 382284, 3946975, 0, 0, 0"], "EPSG:32654")
    with pytest.raises(DatasetError, match=r"gps gives coordinates in EPSG:32654 by sensors\.txt; only EPSG:4326"):
        read_kapture(root)
    (sensors / "records_gnss.txt").unlink()
    write(sensors / "trajectories.txt", ["1, cam, 1, 0, 0, 0, 0, 0, 0", "01, cam, 1, 0, 0, 0, 5, 0, 0"])
    with pytest.raises(DatasetError, match=r"lines 2 and 3 both place cam at timestamp 1"):
        read_kapture(root)
    (sensors / "trajectories.txt").write_bytes("# Straße".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"trajectories\.txt is not text in UTF-8"):
        read_kapture(root)
    write(sensors / "records_camera.txt", ["1, cam, sub/0.jpg", "2, cam, sub/0.jpg"])
    write(sensors / "trajectories.txt", ["1, cam, 1, 0, 0, 0, 0, 0, 0", "2, cam, 1, 0, 0, 0, 5, 0, 0"])
    with pytest.raises(DatasetError, match=r"sub/0\.jpg is listed 2 times"):
        read_kapture(root)


def test_an_image_is_where_its_camera_is_not_where_the_translation_says(tmp_path):
    # A camera at (3, 4, 0) that has turned half around: written out by hand, from world to camera.
    for kapture in ("mapping", "query"):
        write_photos(tmp_path / kapture, [(0, "cam", "a.jpg")])
        write(tmp_path / kapture / "sensors/trajectories.txt", ["0, cam, 0, 0, 0, 1, 3, 4, 0"])
    (record,) = read_kapture(tmp_path).database.records
    assert record.position == MetricPosition(3.0, 4.0, RECONSTRUCTION)
