"""COLMAP models, text and binary: camera centres against SciPy's rotations, ground truth against plain loops."""

import math
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy.spatial.transform import Rotation

from vpr_dhe.datasets.base import Protocol
from vpr_dhe.datasets.colmap import LAYOUT, read_colmap
from vpr_dhe.errors import DatasetError

NAMES = [f"db/{number}.jpg" for number in range(20)] + [f"query/night {number}.jpg" for number in range(8)]
CENTRES = np.random.default_rng(8).uniform(-40, 40, (28, 3))
ROTATIONS = Rotation.random(28, random_state=5)
POSES = [
    # The length of a quaternion means nothing.
    [*(rotation.as_quat()[[3, 0, 1, 2]] * 1.5).tolist(), *(-rotation.apply(centre)).tolist()]
    for rotation, centre in zip(ROTATIONS, CENTRES, strict=True)
]


def write_text(folder: Path, poses=POSES, names=NAMES) -> Path:
    lines = ["# Image list with two lines of data per image:", f"# Number of images: {len(names)}"]
    for number, (pose, name) in enumerate(zip(poses, names, strict=True), start=1):
        lines += [" ".join(map(str, [number, *pose, 1, name])), "1.5 2.5 -1 3.5 4.5 7" if number % 3 else ""]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text("# none\n")
    (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "images.txt"


def write_binary(folder: Path, poses=POSES, names=NAMES) -> Path:
    content = struct.pack("<Q", len(names))
    for number, (pose, name) in enumerate(zip(poses, names, strict=True), start=1):
        points = number % 3
        content += struct.pack("<I7dI", number, *pose, 1) + name.encode() + b"\0"
        content += struct.pack("<Q", points) + struct.pack("<ddq", 1.5, 2.5, -1) * points
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", 0))
    (folder / "images.bin").write_bytes(content)
    return folder / "images.bin"


def touch_images(folder: Path, names=NAMES) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (20, 20)).save(folder / name)


@pytest.fixture
def town(tmp_path) -> Path:
    touch_images(tmp_path / "town/images")
    return tmp_path / "town"


def expected_positives(radius: float, near=slice(0, 20), asked=slice(20, 28)) -> list[list[int]]:
    return [
        [row for row, point in enumerate(CENTRES[near]) if math.dist(point, query) <= radius]
        for query in CENTRES[asked]
    ]


@pytest.mark.parametrize("write", [write_text, write_binary])
@pytest.mark.parametrize("folder", [".", "sparse", "sparse/0", "model"])
@pytest.mark.parametrize("radius", [25.0, 40.0])
def test_right_is_what_is_near_in_space(town, write, folder, radius):
    write(town / folder)
    assert LAYOUT.recognises(town)
    dataset = LAYOUT.read(town, Protocol(database="db", queries="query", radius_m=radius))
    assert [record.path for record in dataset.database.records] == sorted(NAMES[:20])
    order = [NAMES.index(record.path) for record in dataset.database.records]
    assert [sorted(order[row] for row in rows) for rows in dataset.positives] == expected_positives(radius)
    positions = np.array([(record.position.x_m, record.position.y_m) for record in dataset.database.records])
    assert positions == pytest.approx(CENTRES[order, :2])
    assert dataset.protocol.endswith(f"database db, queries query, within {radius:g} units of the model")
    assert dataset.database.folder == town / "images"


def test_text_and_binary_agree_to_the_last_digit(town):
    write_text(town / "text")
    write_binary(town / "binary")
    one, other = (read_colmap(town, queries="query", model=town / kind) for kind in ("text", "binary"))
    assert one.database == other.database
    assert one.queries == other.queries


def test_lists_choose_images_and_may_go_on_with_intrinsics(town):
    write_binary(town / "sparse/0")
    (town / "lists").mkdir()
    (town / "lists/queries.txt").write_text("# night\n\ndb/3.jpg SIMPLE_RADIAL 20 20 15 10 10 0.1\n./db/7.jpg\n")
    (town / "lists/database.txt").write_text("db/9.jpg\ndb/1.jpg\ndb/12.jpg\n")
    dataset = read_colmap(town, queries="lists/queries.txt", database="lists/database.txt", radius=60.0)
    assert [record.path for record in dataset.queries.records] == ["db/3.jpg", "db/7.jpg"]
    assert [record.path for record in dataset.database.records] == ["db/9.jpg", "db/1.jpg", "db/12.jpg"]
    expected = expected_positives(60.0, near=[9, 1, 12], asked=[3, 7])
    assert [rows.tolist() for rows in dataset.positives] == expected
    # Without --database: all other images of the model.
    dataset = read_colmap(town, queries="lists/queries.txt")
    assert len(dataset.database.records) == 26
    assert "database of all other images, queries lists/queries.txt" in dataset.protocol


def test_images_may_lie_elsewhere(town):
    write_text(town)
    (town / "images").rename(town / "moved")
    (town / "images").mkdir()
    (town / "moved").rename(town / "images/images_upright")
    dataset = read_colmap(town, queries="query")
    assert dataset.database.folder == town / "images/images_upright"
    (town / "images/images_upright").rename(town / "moved")
    with pytest.raises(DatasetError, match=r"images\.txt, such as db/0\.jpg, are in none of .*images_upright"):
        read_colmap(town, queries="query")


def test_images_that_the_model_does_not_hold_are_left_out(town):
    kept = [row for row in range(28) if row not in {4, 5, 21}]
    write_binary(town / "sparse", [POSES[row] for row in kept], [NAMES[row] for row in kept])
    dataset = read_colmap(town, queries="query", database="db", radius=40.0)
    assert (len(dataset.database.records), len(dataset.queries.records)) == (18, 7)
    assert dataset.protocol.endswith(", 2 of 20 database images and 1 of 8 queries without a position left out")
    order = [NAMES.index(record.path) for record in dataset.database.records]
    expected = expected_positives(40.0)
    del expected[1]
    found = [sorted(order[row] for row in rows) for rows in dataset.positives]
    assert found == [[row for row in rows if row not in {4, 5}] for rows in expected]


def test_queries_outside_the_model_have_no_public_ground_truth(town):
    write_text(town / "sparse", POSES[:20], NAMES[:20])
    dataset = read_colmap(town, queries="query")
    assert dataset.positives is None
    assert dataset.protocol.endswith("queries query, queries without positions, ground truth not public")
    assert len(dataset.queries.records) == 8


def test_what_to_give_is_said(town):
    with pytest.raises(
        DatasetError, match=r"no COLMAP model in .*sparse/0.*; expected images\.bin or images\.txt; give"
    ):
        read_colmap(town, queries="query")
    assert not LAYOUT.recognises(town)
    write_text(town / "sparse")
    with pytest.raises(DatasetError, match=r"does not say which images are queries; give by --queries a list of them"):
        LAYOUT.read(town, Protocol())
    with pytest.raises(DatasetError, match=r"neither .*town/night is a file nor .*images/night a folder"):
        read_colmap(town, queries="night")
    (town / "queries.txt").write_text("db/1.jpg\ndb/99.jpg\n")
    with pytest.raises(DatasetError, match=r"queries\.txt, line 2: .*images/db/99\.jpg does not exist"):
        read_colmap(town, queries="queries.txt")
    (town / "queries.txt").write_text("db/1.jpg\ndb/1.jpg\n")
    with pytest.raises(DatasetError, match=r"db/1\.jpg is listed 2 times"):
        read_colmap(town, queries="queries.txt")
    with pytest.raises(DatasetError, match=r"1 images are both in the database and queries, such as db/1\.jpg"):
        read_colmap(town, queries="queries.txt", database="db")
    (town / "images/db/5.jpg").unlink()
    with pytest.raises(DatasetError, match=r"holds 1 images that do not exist, such as .*db/5\.jpg"):
        read_colmap(town, queries="query")
    write_text(town / "sparse", POSES[:20], NAMES[:20])
    with pytest.raises(DatasetError, match=r"none of the 8 database images has a position"):
        read_colmap(town, queries="queries.txt", database="query")


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ([0.0] * 4 + [1.0, 2.0, 3.0], r"found the pose 0, 0, 0, 0, 1, 2, 3; expected a quaternion other than zero"),
        ([1.0, 0.0, 0.0, 0.0, 1.0, math.nan, 3.0], r"found the pose 1, .*nan, 3; expected finite numbers"),
    ],
)
def test_poses_that_are_none_are_named(town, pose, message):
    poses = [*POSES[:2], pose, *POSES[3:]]
    write_text(town / "text", poses)
    with pytest.raises(DatasetError, match=r"images\.txt, line 7: " + message):
        read_colmap(town, queries="query", model=town / "text")
    write_binary(town / "binary", poses)
    with pytest.raises(DatasetError, match=r"images\.bin, image 3 \(db/2\.jpg\): " + message):
        read_colmap(town, queries="query", model=town / "binary")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", r"images\.txt holds no image"),
        ("1 1 0 0 0 0 0 0 1\n\n", r"line 1: found 9 values; expected IMAGE_ID, QW"),
        ("1 1 0 0 0 0 x 0 1 db/0.jpg\n\n", r"line 1: found the pose .*; expected finite numbers"),
        (
            "1 1 0 0 0 0 0 0 1 db/0.jpg\n2 1 0 0 0 0 0 0 1 db/1.jpg\n",
            r"line 2: found 10 values; expected the points of",
        ),
        ("1 1 0 0 0 0 0 0 1 db/0.jpg\n\n2 1 0 0 0 1 0 0 1 db/0.jpg\n\n", r"line 3: db/0\.jpg is there twice"),
    ],
)
def test_mistakes_in_text_are_explained(town, text, message):
    write_text(town).write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_colmap(town, queries="query")


def test_the_last_line_of_points_may_be_missing(town):
    write_text(town).write_text("1 1 0 0 0 -1 0 0 1 db/0.jpg\n\n2 1 0 0 0 -1 0 0 1 query/night 0.jpg")
    (positives,) = read_colmap(town, queries="query").positives
    assert positives.tolist() == [0]


@pytest.mark.parametrize("kept", [0, 7, 8, 50, 72, 74, 85, 100, -1])
def test_binary_models_that_are_cut_off_are_refused(town, kept):
    file = write_binary(town)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DatasetError, match=r"images\.bin is cut off or not an images\.bin of COLMAP"):
        read_colmap(town, queries="query")


def test_binary_models_that_are_none_are_refused(town):
    file = write_binary(town)
    for content in (bytes(range(256)) * 40, file.read_bytes().replace(b"db/3", b"\xff\xfe/3")):
        file.write_bytes(content)
        with pytest.raises(DatasetError, match=r"images\.bin"):
            read_colmap(town, queries="query")
    write_text(town).write_bytes("# Straße".encode("latin-1"))
    file.unlink()
    with pytest.raises(DatasetError, match=r"images\.txt is not text in UTF-8"):
        read_colmap(town, queries="query")
