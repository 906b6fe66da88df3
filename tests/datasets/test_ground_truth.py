"""Files of ground truth: what tables and archives may look like, against plain loops, and what is said of mistakes."""

import math
from pathlib import Path

import numpy as np
import pytest

from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.datasets.ground_truth import read_ground_truth
from vpr_dhe.errors import DatasetError
from vpr_dhe.records import ImageRecord

DATABASE = ("a/1.jpg", "a/2.jpg", "b/2.jpg", "c/3.png", "d.jpg")
QUERIES = ("day/x.jpg", "night/y.jpg", "z.jpg")


def split_of(*paths: str) -> PlaceSplit:
    return PlaceSplit(Path("folder"), tuple(ImageRecord(path) for path in paths))


def read(path: Path, radius_m: float | None = None) -> list[list[int]]:
    truth = read_ground_truth(path, split_of(*DATABASE), split_of(*QUERIES), radius_m)
    assert all(rows.dtype == np.int64 for rows in truth.positives)
    return [rows.tolist() for rows in truth.positives]


def table_of(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "header",
    ["query,database", "Query_Image, DATABASE_IMAGE ", "image_query,reference", "query,index", "query,gallery"],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_name_images(tmp_path, header, separator):
    # By path, by a name that is there once, without its extension, with a path as Windows writes it; one pair twice.
    rows = "z.jpg,a/1.jpg\nday/x.jpg,d\nx,3.png\nday\\x.jpg,./b/2.jpg\nx.jpg,c/3.png\n"
    text = f"{header}\n{rows}".replace(",", separator)
    assert read(table_of(tmp_path, text)) == [[2, 3, 4], [], [0]]


@pytest.mark.parametrize(
    "text",
    [
        "query_index,database_index\n2,0\n0,4\n0,3\n",
        "query,database_index\nz,0\nx,4\nx,3\n",
        "score,query_row,ref\n0.5,2,a/1.jpg\n1,0,d.jpg\n,00,3\n",
    ],
)
def test_tables_may_count_images(tmp_path, text):
    assert read(table_of(tmp_path, text)) == [[3, 4], [], [0]]


def test_the_rule_names_the_file(tmp_path):
    path = table_of(tmp_path, "query\tdatabase\nz\td\n", "pairs.tsv")
    truth = read_ground_truth(path, split_of(*DATABASE), split_of(*QUERIES), None)
    assert truth.rule == "right as listed in pairs.tsv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "query,image\nz,d\n",
            r"has the columns query, image; expected a column query or query_index, and a column da",
        ),
        ("database,score\nd,1\n", r"has the columns database, score"),
        ("query,database\n", r"has no rows; expected one row per right pair"),
        ("", r"is not a table"),
        ("query,database\nz,d\nz,e.jpg\n", r"line 3, column database: found 'e\.jpg'; expected an image of folder by"),
        ("query,ref\nz,other/d.jpg\n", r"line 2, column ref: found 'other/d\.jpg'.* such as a/1\.jpg"),
        ("query,database\nqueries/z.jpg,d\n", r"line 2, column query: found 'queries/z\.jpg'"),
        (
            "query,database\nz,d\n\nz,2.jpg\n",
            r"line 4, column database: found '2\.jpg'.* not a/2\.jpg or b/2\.jpg; wri",
        ),
        ("query,database\nz,\n", r"line 2, column database: found an empty cell"),
        ("query_index,database\n3,d\n", r"column query_index: found '3'; expected a whole number from 0 to 2"),
        ("query,database_index\nz,-1\n", r"found '-1'; expected a whole number from 0 to 4"),
        ("query,database_index\nz,nan\n", r"found 'nan'; expected a whole number"),
        ("query,database\nz,d,1\n", r"more cells than its header"),
    ],
)
def test_mistakes_in_tables_are_explained(tmp_path, text, message):
    path = table_of(tmp_path, text)
    with pytest.raises(DatasetError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_of_ground_truth_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"table of right pairs .* does not exist"):
        read(tmp_path / "none.csv")
    with pytest.raises(DatasetError, match=r"does not exist; expected a file \.npz with utmQ, utmDb and posDistThr"):
        read(tmp_path / "none.npz")
    with pytest.raises(
        DatasetError, match=r"pairs\.mat is not a file of ground truth; expected \.csv, \.tsv, \.txt or"
    ):
        read(table_of(tmp_path, "", "pairs.mat"))
    with pytest.raises(DatasetError, match=r"lists what is right, so a radius of 25 m has no effect"):
        read(table_of(tmp_path, "query,database\nz,d\n"), 25.0)


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_pickled_objects_are_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.array([Trap(), Trap()], dtype=object)
    np.save(tmp_path / "truth.npy", objects, allow_pickle=True)
    with pytest.raises(DatasetError, match=r"may run any code when they are read; .* convert it to a CSV file"):
        read(tmp_path / "truth.npy")
    np.savez(tmp_path / "truth.npz", utmQ=objects, utmDb=np.zeros((5, 2)), posDistThr=25)
    with pytest.raises(DatasetError, match=r"is not a readable file \.npz of numbers"):
        read(tmp_path / "truth.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def archive(tmp_path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    corner = np.array([584_744.0, 4_476_709.0])
    return {"utmQ": corner + rng.uniform(0, 60, (3, 2)), "utmDb": corner + rng.uniform(0, 60, (5, 2))}


@pytest.mark.parametrize(("threshold", "radius_m"), [(25, None), (np.float32(40.0), None), (25, 12.5), (None, 30.0)])
def test_archives_hold_positions_and_a_radius(tmp_path, archive, threshold, radius_m):
    np.savez(tmp_path / "town.npz", **archive, **({} if threshold is None else {"posDistThr": threshold}))
    truth = read_ground_truth(tmp_path / "town.npz", split_of(*DATABASE), split_of(*QUERIES), radius_m)
    radius = float(threshold) if radius_m is None else radius_m
    expected = [
        [row for row, image in enumerate(archive["utmDb"]) if math.dist(query, image) <= radius]
        for query in archive["utmQ"]
    ]
    assert [rows.tolist() for rows in truth.positives] == expected
    assert any(expected)
    assert truth.rule == f"within {radius:g} by the positions in town.npz"


def test_the_radius_itself_counts(tmp_path):
    queries = np.array([[584_744, 4_476_709], [0, 0], [0, 0]])
    steps = np.array([[25, 0], [15, 20], [-7, -24], [25, 1], [0, 26]])
    np.savez(tmp_path / "town.npz", utmQ=queries, utmDb=queries[0] + steps, posDistThr=25)
    assert read(tmp_path / "town.npz") == [[0, 1, 2], [], []]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"posDistThr": None}, r"has the arrays utmDb, utmQ, but not posDistThr; expected utmQ, utmDb and posDistThr"),
        ({"utmQ": None}, r"has the arrays posDistThr, utmDb, but not utmQ"),
        (
            {"utmQ": np.zeros((4, 2))},
            r"the array utmQ has the shape \(4, 2\); expected \(3, 2\).* of the 3 images of fo",
        ),
        ({"utmDb": np.zeros((5, 3))}, r"the array utmDb has the shape \(5, 3\); expected \(5, 2\)"),
        ({"utmDb": np.full((5, 2), np.nan)}, r"the array utmDb holds values that are not finite numbers"),
        ({"utmQ": np.full((3, 2), "x")}, r"the array utmQ holds values that are not finite numbers"),
        ({"posDistThr": np.array([25, 30])}, r"the array posDistThr has the shape \(2,\); expected one number"),
        ({"posDistThr": np.inf}, r"the array posDistThr holds values that are not finite numbers"),
    ],
)
def test_mistakes_in_archives_are_explained(tmp_path, archive, changes, message):
    arrays = {**archive, "posDistThr": 25, **changes}
    np.savez(tmp_path / "town.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "town.npz")


def test_damaged_archives_are_refused(tmp_path, archive):
    np.savez_compressed(tmp_path / "town.npz", **archive, posDistThr=25)
    content, right = (tmp_path / "town.npz").read_bytes(), read(tmp_path / "town.npz")
    damaged = tmp_path / "damaged.npz"
    for start in range(0, len(content), 8):
        damaged.write_bytes(content[:start])
        with pytest.raises(DatasetError, match=r"damaged\.npz is not a readable file \.npz"):
            read(damaged)
        damaged.write_bytes(content[:start] + b"damaged!" + content[start + 8 :])
        # Dates, for one, may be damaged and do no harm.
        try:
            assert read(damaged) == right
        except DatasetError as error:
            assert "damaged.npz" in str(error)  # noqa: PT017


def test_archives_without_an_archive_are_refused(tmp_path):
    np.save(tmp_path / "town.npy", np.zeros((5, 2)))
    (tmp_path / "town.npy").rename(tmp_path / "town.npz")
    with pytest.raises(DatasetError, match=r"town\.npz is not a readable file \.npz of numbers"):
        read(tmp_path / "town.npz")
