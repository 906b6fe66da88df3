"""Miniature MSLS trees, read and compared with the protocol written out as loops over the rows of the files."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from vpr_dhe.datasets.base import Protocol
from vpr_dhe.datasets.msls import LAYOUT, read_msls
from vpr_dhe.errors import DatasetError
from vpr_dhe.records import ImageRecord, MetricPosition

POSTPROCESSED = ["key", "easting", "northing", "unique_cluster", "control_panel", "night", "view_direction"]
RAW = ["key", "lon", "lat", "ca", "captured_at", "pano"]
SUBTASKS = ["key", "all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"]
SEQUENCES = ["key", "sequence_key", "frame_number"]
TABLES = ("postprocessed.csv", "raw.csv", "subtask_index.csv", "seq_info.csv")


def write_table(path: Path, columns: list[str], rows: list[list]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["", *columns])
        table.writerows([number, *row] for number, row in enumerate(rows))


def write_folder(folder: Path, count: int, rng: np.random.Generator, *, test: bool = False) -> None:
    """Images in a square of 300 m, a quarter of them panoramas, three quarters of subtask `all`."""
    (folder / "images").mkdir(parents=True)
    keys = [f"{folder.name[0]}-_{number}{folder.parent.name}" for number in range(count)]
    for key in keys:
        (folder / "images" / f"{key}.jpg").touch()
    flags = rng.random((count, 10)) < 0.75
    write_table(folder / "seq_info.csv", SEQUENCES, [[key, "sequence", n] for n, key in enumerate(keys)])
    write_table(folder / "subtask_index.csv", SUBTASKS, [[key, *flags[n, :7]] for n, key in enumerate(keys)])
    if test:
        return
    places = rng.uniform(0, 300, (count, 2)) + np.array([340_000, 6_170_000])
    placed = [[key, *places[n].tolist(), n, False, flags[n, 7], "Forward"] for n, key in enumerate(keys)]
    write_table(folder / "postprocessed.csv", POSTPROCESSED, placed)
    angles = rng.uniform(0, 360, count)
    raw = [[key, 12.5, 55.6, angles[n], f"2017-0{n % 9 + 1}-14", not flags[n, 8]] for n, key in enumerate(keys)]
    write_table(folder / "raw.csv", RAW, raw)


def write_city(root: Path, city: str, seed: int, *, test: bool = False) -> None:
    rng = np.random.default_rng(seed)
    folder = root / ("test" if test else "train_val") / city
    write_folder(folder / "database", 60, rng, test=test)
    write_folder(folder / "query", 40, rng, test=test)


@pytest.fixture
def msls(tmp_path) -> Path:
    """Both cities of val, at the same coordinates, which lie in different zones."""
    for seed, city in enumerate(("cph", "sf")):
        write_city(tmp_path / "MSLS", city, seed)
    return tmp_path / "MSLS"


@pytest.fixture
def msls_test(tmp_path) -> Path:
    for seed, city in enumerate(("miami", "athens", "buenosaires", "stockholm", "bengaluru", "kampala")):
        write_city(tmp_path / "MSLS", city, seed, test=True)
    return tmp_path / "MSLS"


@dataclass
class Counted:
    """What the protocol's text says counts, by path."""

    database: list[str]
    queries: list[str]
    positives: list[list[str]]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def counting_rows(root: Path, city: str, side: str, *, subtask: bool) -> list[tuple[str, tuple[float, float]]]:
    folder = root / "train_val" / city / side
    counting = []
    for placed, raw, tasks in zip(*(rows_of(folder / name) for name in TABLES[:3]), strict=True):
        if raw["pano"] == "False" and (tasks["all"] == "True" or not subtask):
            path = f"train_val/{city}/{side}/images/{placed['key']}.jpg"
            counting.append((path, (float(placed["easting"]), float(placed["northing"]))))
    return counting


def count(root: Path, cities: list[str], radius_m: float, *, subtask: bool, keep_unanswerable: bool) -> Counted:
    counted = Counted([], [], [])
    for city in cities:
        database = counting_rows(root, city, "database", subtask=subtask)
        counted.database += [path for path, _ in database]
        for path, place in counting_rows(root, city, "query", subtask=subtask):
            near = [other for other, there in database if math.dist(place, there) <= radius_m]
            if near or keep_unanswerable:
                counted.queries.append(path)
                counted.positives.append(near)
    return counted


def counted_of(dataset) -> Counted:
    database = [record.path for record in dataset.database.records]
    return Counted(
        database,
        [record.path for record in dataset.queries.records],
        [[database[row] for row in rows] for rows in dataset.positives],
    )


def change(path: Path, edit: Callable[[list[list[str]]], None]) -> None:
    """Edit the lines of a CSV file as lists of cells."""
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    edit(lines)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def set_cell(path: Path, line: int, column: str, text: str) -> None:
    change(path, lambda lines: lines[line - 1].__setitem__(lines[0].index(column), text))


def fill(path: Path, column: str, text: str) -> None:
    for line in range(2, len(rows_of(path)) + 2):
        set_cell(path, line, column, text)


@pytest.mark.parametrize("radius_m", [25.0, 10.0])
@pytest.mark.parametrize("variant", ["official", "all"])
def test_val_is_what_the_protocol_says(msls, variant, radius_m):
    dataset = LAYOUT.read(msls, Protocol(variant=variant, radius_m=radius_m))
    official = variant == "official"
    expected = count(msls, ["cph", "sf"], radius_m, subtask=official, keep_unanswerable=not official)
    assert counted_of(dataset) == expected
    everything = count(msls, ["cph", "sf"], radius_m, subtask=official, keep_unanswerable=True)
    unanswerable = everything.positives.count([])
    assert 0 < unanswerable < len(everything.queries)
    assert dataset.protocol == (
        f"MSLS val (cph, sf), official protocol: subtask all, panoramas dropped, within {radius_m:g} m in the same "
        f"city, queries without a positive left out ({unanswerable})"
        if official
        else f"MSLS val (cph, sf), all images: panoramas dropped, within {radius_m:g} m in the same city, "
        f"queries without a positive kept ({unanswerable})"
    )
    assert dataset.database.folder == dataset.queries.folder == msls
    assert all((msls / record.path).is_file() for record in dataset.database.records)


def test_val_official_within_25_m_is_the_default(msls):
    default = LAYOUT.read(msls, Protocol())
    assert default.protocol == read_msls(msls, split="val", variant="official", radius_m=25.0).protocol
    assert counted_of(default) == counted_of(read_msls(msls))


def test_positives_are_never_of_another_city(msls):
    dataset = read_msls(msls, variant="all", radius_m=100.0)
    for record, rows in zip(dataset.queries.records, dataset.positives, strict=True):
        cities = {dataset.database.records[row].path.split("/")[1] for row in rows}
        assert cities <= {record.path.split("/")[1]}


@pytest.mark.parametrize("cities", [["sf"], ["cph"], ["sf", "cph"]])
def test_cities_are_read_in_the_order_given(msls, cities):
    dataset = LAYOUT.read(msls, Protocol(split=", ".join(cities)))
    assert counted_of(dataset) == count(msls, cities, 25.0, subtask=True, keep_unanswerable=False)
    assert dataset.protocol.startswith(f"MSLS {', '.join(cities)}, official protocol: subtask all")


def test_the_radius_itself_counts(msls):
    for side, east in (("database", "340000"), ("query", "340025")):
        fill(msls / "train_val/cph" / side / "postprocessed.csv", "easting", east)
        fill(msls / "train_val/cph" / side / "postprocessed.csv", "northing", "6170000")
    dataset = read_msls(msls, split="cph")
    assert all(rows.size == len(dataset.database.records) for rows in dataset.positives)


@pytest.mark.parametrize("variant", ["official", "all"])
def test_train_reads_the_cities_whose_images_are_here(tmp_path, variant):
    for seed, city in enumerate(("zurich", "london", "paris", "cph")):
        write_city(tmp_path, city, seed)
    for side in ("query", "database"):
        for image in (tmp_path / "train_val/paris" / side / "images").iterdir():
            image.unlink()
        (tmp_path / "train_val/paris" / side / "images").rmdir()
    dataset = LAYOUT.read(tmp_path, Protocol(split="train", variant=variant))
    kept = variant == "all"
    assert counted_of(dataset) == count(tmp_path, ["london", "zurich"], 25.0, subtask=False, keep_unanswerable=kept)
    assert dataset.protocol.startswith("MSLS train (london, zurich), not here: trondheim, boston")
    assert "paris" in dataset.protocol
    assert "subtask" not in dataset.protocol


def test_the_challenge_has_no_positions_and_no_positives(msls_test):
    dataset = LAYOUT.read(msls_test, Protocol(split="test"))
    assert dataset.positives is None
    assert dataset.protocol.endswith("kampala), official protocol: subtask all, ground truth not public")
    for split, side in ((dataset.database, "database"), (dataset.queries, "query")):
        expected = [
            f"test/{city}/{side}/images/{row['key']}.jpg"
            for city in ("miami", "athens", "buenosaires", "stockholm", "bengaluru", "kampala")
            for row in rows_of(msls_test / "test" / city / side / "subtask_index.csv")
            if row["all"] == "True"
        ]
        assert split.records == tuple(ImageRecord(path) for path in expected)
    assert {r.path.split("/")[1] for r in read_msls(msls_test, split="miami").queries.records} == {"miami"}


def test_records_carry_position_heading_and_day(msls):
    folder = msls / "train_val/sf/database"
    fill(folder / "raw.csv", "pano", "False")
    angles = ["270.5", "360.0", "-90", "-1e-20", "-999", "655.35", "nan", "", "east"]
    for line, angle in enumerate(angles, start=2):
        set_cell(folder / "raw.csv", line, "ca", angle)
    for line, date in enumerate(["2018-02-28", "2018-02-30", ""], start=2):
        set_cell(folder / "raw.csv", line, "captured_at", date)
    dataset = read_msls(msls, split="sf", variant="all")
    records = dataset.database.records
    assert [r.heading_deg for r in records[: len(angles)]] == [270.5, 0.0, 270.0, 0.0, None, None, None, None, None]
    day = datetime(2018, 2, 28, tzinfo=UTC).timestamp()
    assert [r.timestamp_s for r in records[:4]] == [day, None, None, datetime(2017, 4, 14, tzinfo=UTC).timestamp()]
    first = rows_of(folder / "postprocessed.csv")[0]
    assert records[0].position == MetricPosition(float(first["easting"]), float(first["northing"]), "UTM of sf")
    assert dataset.name == "msls"


def test_keys_are_text_whatever_they_look_like(msls):
    folder = msls / "train_val/cph/database"
    for line, key in enumerate(["0012", "NA", "1e5"], start=2):
        (folder / "images" / f"{key}.jpg").touch()
        for name in TABLES:
            set_cell(folder / name, line, "key", key)
        set_cell(folder / "raw.csv", line, "pano", "False")
    paths = [record.path for record in read_msls(msls, split="cph", variant="all").database.records[:3]]
    assert paths == [f"train_val/cph/database/images/{key}.jpg" for key in ("0012", "NA", "1e5")]


def test_tables_may_lack_the_row_numbers_and_the_subtasks_their_keys(msls):
    expected = counted_of(read_msls(msls))
    for path in msls.rglob("*.csv"):
        columns = 2 if path.name == "subtask_index.csv" else 1
        change(path, lambda lines, columns=columns: lines.__setitem__(slice(None), [line[columns:] for line in lines]))
    assert counted_of(read_msls(msls)) == expected


def test_an_image_whose_panorama_cell_is_empty_is_dropped(msls):
    folder = msls / "train_val/cph/query"
    first = read_msls(msls, split="cph", variant="all").queries.records[0]
    line = [row["key"] for row in rows_of(folder / "raw.csv")].index(Path(first.path).stem) + 2
    set_cell(folder / "raw.csv", line, "pano", "")
    assert first not in read_msls(msls, split="cph", variant="all").queries.records


def test_a_city_that_nothing_is_left_of_is_passed_over(msls):
    fill(msls / "train_val/cph/query/raw.csv", "pano", "True")
    dataset = read_msls(msls)
    assert counted_of(dataset) == count(msls, ["sf"], 25.0, subtask=True, keep_unanswerable=False)
    assert dataset.protocol.startswith("MSLS val (sf), passed over as nothing is left of: cph, official protocol")


def test_only_the_root_is_recognised(msls, tmp_path):
    assert LAYOUT.recognises(msls)
    others = (tmp_path, msls / "train_val", msls / "train_val/cph", msls / "train_val/cph/query", tmp_path / "none")
    assert not any(LAYOUT.recognises(folder) for folder in others)
    (tmp_path / "vpr/images/test/database").mkdir(parents=True)
    assert not LAYOUT.recognises(tmp_path / "vpr")
    assert not LAYOUT.recognises(tmp_path / "vpr/images")


def test_the_challenge_alone_is_recognised(msls_test):
    assert LAYOUT.recognises(msls_test)


@pytest.mark.parametrize("level", ["MSLS/train_val", "MSLS/train_val/cph", "MSLS/train_val/cph/query", "."])
def test_another_level_is_told_the_right_one(msls, level):
    with pytest.raises(DatasetError, match=rf"is not the folder that MSLS was extracted into.*; give {msls} instead"):
        read_msls(msls.parent / level)


def test_folders_without_msls_are_explained(tmp_path):
    with pytest.raises(DatasetError, match=r"none does not exist; expected the one that MSLS was extracted into"):
        read_msls(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"no train_val/CITY/query.*extract the archives of MSLS there"):
        read_msls(tmp_path)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (Protocol(variant="half"), r"unknown variant 'half' of MSLS; expected official or all"),
        (Protocol(split="dev"), r"unknown split or city 'dev' of MSLS; expected train, val, test, or cities .*cph, sf"),
        (Protocol(split="cph,"), r"unknown split or city ''"),
        (Protocol(split="cph,../sf"), r"unknown split or city '\.\./sf'"),
        (Protocol(split="cph,sf,cph"), r"--split cph,sf,cph names a city more than once; name each city once"),
        (Protocol(split="cph,miami"), r"mixes cities of test, whose ground truth is not public, .*read them apart"),
        (Protocol(split="test", variant="all"), r"--variant all for miami, .*expected official; leave --variant out"),
        (Protocol(split="cph,paris"), r"train_val/paris does not exist; .*--split cph reads only one city"),
        (Protocol(split="test"), r"MSLS/test/miami does not exist; expected .*miami/\{query,database\}"),
        (Protocol(split="train"), r"train_val has no images of a train city; expected CITY/.*choose another --split"),
        (Protocol(radius_m=1e-6), r"none of the \d+ queries has a positive \(MSLS val"),
    ],
)
def test_choices_that_cannot_be_met_are_explained(msls, choice, sentence):
    with pytest.raises(DatasetError, match=sentence):
        LAYOUT.read(msls, choice)


def test_a_missing_city_of_val_is_named(tmp_path):
    write_city(tmp_path, "sf", 0)
    with pytest.raises(DatasetError, match=r"train_val/cph does not exist; .*--split sf reads only one city"):
        read_msls(tmp_path)
    assert read_msls(tmp_path, split="sf").queries.records
    (tmp_path / "train_val/cph/database").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"train_val/cph/query does not exist; expected"):
        read_msls(tmp_path)


@pytest.mark.parametrize("name", ["postprocessed.csv", "raw.csv", "subtask_index.csv"])
def test_a_missing_table_is_named(msls, name):
    (msls / "train_val/sf/query" / name).unlink()
    with pytest.raises(DatasetError, match=rf"sf/query/{name} does not exist; .*extract that into {msls}$"):
        read_msls(msls)


def test_a_missing_table_of_the_challenge_is_named(msls_test):
    (msls_test / "test/miami/query/seq_info.csv").unlink()
    with pytest.raises(DatasetError, match=r"miami/query/seq_info\.csv does not exist"):
        read_msls(msls_test, split="test")


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("postprocessed.csv", "easting", "key, easting, northing"),
        ("raw.csv", "pano", "key, ca, captured_at, pano"),
        ("subtask_index.csv", "all", "all"),
    ],
)
def test_a_missing_column_is_named(msls, name, column, expected):
    path = msls / "train_val/sf/database" / name
    change(path, lambda lines: lines[0].__setitem__(lines[0].index(column), "other"))
    with pytest.raises(DatasetError, match=rf"sf/database/{name} has no column {column}; expected {expected} in"):
        read_msls(msls)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\xd8", b'"' * 3 + b"\n1,2\n3,4,5\n"])
def test_files_that_are_no_table_are_named(msls, content):
    (msls / "train_val/sf/database/raw.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"raw\.csv (cannot be read as a table|has no column)"):
        read_msls(msls)


@pytest.mark.parametrize("name", ["raw.csv", "subtask_index.csv"])
def test_tables_of_one_folder_must_correspond(msls, name):
    path = msls / "train_val/cph/query" / name
    change(path, lambda lines: lines.insert(3, lines.pop(4)))
    with pytest.raises(DatasetError, match=rf"line 4 of .*postprocessed\.csv is about q-_2cph, but of {name} .* q-_3"):
        read_msls(msls)
    change(path, lambda lines: lines.pop())
    with pytest.raises(DatasetError, match=rf"postprocessed\.csv has 40 rows and {name} next to it 39; expected one"):
        read_msls(msls)


def test_keys_that_come_twice_are_named(msls):
    set_cell(msls / "train_val/cph/query/postprocessed.csv", 9, "key", "q-_2cph")
    with pytest.raises(DatasetError, match=r"postprocessed\.csv: lines 4 and 9 have the same key q-_2cph; expected"):
        read_msls(msls)
    set_cell(msls / "train_val/cph/query/postprocessed.csv", 9, "key", "")
    with pytest.raises(DatasetError, match=r"postprocessed\.csv, line 9, column key: found ''; expected the name of"):
        read_msls(msls)


@pytest.mark.parametrize("cell", ["", "east", "nan", "inf"])
def test_a_coordinate_that_is_no_number_is_named(msls, cell):
    fill(msls / "train_val/sf/query/raw.csv", "pano", "False")
    set_cell(msls / "train_val/sf/query/postprocessed.csv", 7, "northing", cell)
    with pytest.raises(DatasetError, match=rf"line 7, column northing: found '{cell}'; expected a number of metres"):
        read_msls(msls, variant="all")


@pytest.mark.parametrize(("name", "column"), [("raw.csv", "pano"), ("subtask_index.csv", "all")])
def test_a_flag_that_is_neither_true_nor_false_is_named(msls, name, column):
    set_cell(msls / "train_val/sf/query" / name, 5, column, "perhaps")
    with pytest.raises(DatasetError, match=rf"{name}, line 5, column {column}: found 'perhaps'; expected True or"):
        read_msls(msls)


def test_a_table_that_breaks_off_within_a_line_is_named(msls):
    path = msls / "train_val/sf/database/postprocessed.csv"
    change(path, lambda lines: lines.__setitem__(-1, lines[-1][:2]))
    fill(msls / "train_val/sf/database/raw.csv", "pano", "False")
    with pytest.raises(DatasetError, match=r"postprocessed\.csv, line 61, column easting: found ''"):
        read_msls(msls, variant="all")


def test_a_missing_image_is_found_before_any_is_used(msls):
    first = read_msls(msls).database.records[0]
    (msls / first.path).unlink()
    with pytest.raises(DatasetError, match=rf"{first.path} does not exist, though .*extract all images_vol_"):
        read_msls(msls)


def test_nothing_left_is_explained(msls):
    fill(msls / "train_val/cph/query/raw.csv", "pano", "True")
    with pytest.raises(DatasetError, match=r"no pair of query and database images is left of cph \(subtask all, pano"):
        read_msls(msls, split="cph")


def test_the_files_are_left_as_they_are(msls):
    def listing() -> list[tuple[str, int, int]]:
        return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in msls.rglob("*"))

    before = listing()
    read_msls(msls)
    read_msls(msls, variant="all")
    assert listing() == before
