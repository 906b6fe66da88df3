"""`datasets/prepare.py` end to end: a correct copy passes, faults are reported with a remedy, only links are made."""

import csv
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vpr_dhe.datasets import Protocol, read_places

DATASETS = Path(__file__).parents[2] / "datasets"
PREPARE = DATASETS / "prepare.py"
DATABASE, QUERIES = "images/test/database", "images/test/queries"
VPR = f"""
name = "pitts-mini"
title = "A small Pittsburgh"
page = "https://example.org"
obtain = "Ask."
terms = "None."
layout = "vpr"
utm_zone = "17T"
tree = "images"

[[split]]
name = "test"
database = "{DATABASE}"
queries = "{QUERIES}"
database_images = 3
query_images = 2
positions = true
source = "this test"

[[split]]
name = "val"
database = "images/val/database"
queries = "images/val/queries"
source = "this test"

[[protocol]]
name = "test"
split = "test"
options = "--split test --radius-m 25"
meaning = "Within 25 m."
queries = 2
source = "this test"

[[published]]
method = "Guess"
protocol = "test"
recall_at_1 = 12.5
source = "this test"
"""
FOLDERS = (
    VPR.replace('"vpr"', '"folders"')
    .replace("positions = true\n", "")
    .replace(DATABASE, "ref")
    .replace(QUERIES, "query")
    .replace("--split test --radius-m 25", "--layout folders --database ref --queries query --frame-tolerance 1")
)
MSLS = """
name = "msls-mini"
title = "A small MSLS"
page = "https://example.org"
obtain = "Ask."
terms = "None."
layout = "msls"
tree = "train_val"

[[split]]
name = "val"
database = "train_val/{city}/database/images"
queries = "train_val/{city}/query/images"
cities = ["cph", "sf"]
database_images = 4
query_images = 2
positions = true
source = "this test"

[[protocol]]
name = "val"
split = "val"
options = "--layout msls --split val --variant all"
meaning = "All."
source = "this test"
"""
HPATCHES = """
name = "hpatches-mini"
title = "A small HPatches"
page = "https://example.org"
obtain = "Ask."
terms = "None."
layout = "hpatches"
tree = "i_..."

[[split]]
name = "all"
sequences = 2
source = "this test"

[[protocol]]
name = "all"
split = "all"
meaning = "All pairs."
source = "this test"
"""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def prepare(*arguments: object) -> Done:
    done = subprocess.run(
        [sys.executable, str(PREPARE), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def check(root: Path, card: Path, *more: object) -> Done:
    return prepare("check", "mini", root, "--card", card, *more)


def write_card(folder: Path, text: str) -> Path:
    path = folder / "card.toml"
    path.write_text(text)
    return path


def name(number: int, zone: str = "17@T") -> str:
    return f"@{585000 + 10 * number}.00@4477000.00@{zone}@040.43999@-079.99000@{number}@@@@@@@@.jpg"


def fill(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for file in names:
        (folder / file).write_bytes(b"\xff\xd8 not decoded")


@pytest.fixture
def vpr(tmp_path: Path) -> Path:
    root = tmp_path / "copy"
    fill(root / DATABASE, [name(number) for number in range(3)])
    fill(root / QUERIES, [name(number) for number in range(2)])
    return root


@pytest.fixture
def vpr_card(tmp_path: Path) -> Path:
    return write_card(tmp_path, VPR)


def write_rows(path: Path, titles: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([titles, *rows])


@pytest.fixture
def msls(tmp_path: Path) -> Path:
    """Two cities of two database images and a query; one more query is a panorama."""
    root = tmp_path / "msls"
    for city in ("cph", "sf"):
        for part, keys in (("database", ["a", "b"]), ("query", ["c", "d"])):
            folder = root / "train_val" / city / part
            fill(folder / "images", [f"{key}.jpg" for key in keys])
            raw = [[row, key, 12.5, 55.6, 0, "2019-01-01", key == "d"] for row, key in enumerate(keys)]
            write_rows(folder / "raw.csv", ["", "key", "lon", "lat", "ca", "captured_at", "pano"], raw)
            for table in ("postprocessed", "seq_info", "subtask_index"):
                write_rows(folder / f"{table}.csv", ["", "key"], [[row, key] for row, key in enumerate(keys)])
    return root


@pytest.fixture
def hpatches(tmp_path: Path) -> Path:
    root = tmp_path / "hpatches"
    files = [f"{number}.ppm" for number in range(1, 7)] + [f"H_1_{number}" for number in range(2, 7)]
    for sequence in ("i_one", "v_two"):
        fill(root / sequence, files)
    return root


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def test_list_names_every_card():
    done = prepare("list")
    assert done.code == 0
    assert all(path.stem in done.out for path in DATASETS.glob("*.toml"))


def test_it_starts_without_heavy_libraries():
    program = "import sys, prepare; print(sorted({'numpy', 'torch', 'cv2', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=DATASETS, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", sorted(DATASETS.glob("*.toml")), ids=lambda path: path.stem)
def test_show_gives_the_command_line_of_each_protocol(path: Path):
    done = prepare("show", path.stem, "MY_COPY")
    assert done.code == 0
    command = {"hpatches": "evaluate-pairs", "gsv_cities": "train descriptor"}.get(path.stem, "evaluate")
    for variant in tomllib.loads(path.read_text())["protocol"]:
        assert "options" not in variant or f"vpr-dhe {command} MY_COPY {variant['options']}" in done.out


def test_a_right_copy_passes_and_absent_splits_are_notes(vpr: Path, vpr_card: Path):
    done = check(vpr, vpr_card)
    assert done.code == 0
    assert "3 in the database, 2 queries" in done.out
    assert "note: nothing of split val is there" in done.out
    assert read_places(vpr, "vpr", Protocol(split="test", radius_m=25.0)).positives is not None


def test_an_absent_split_that_was_asked_for_is_a_fault(vpr: Path, vpr_card: Path):
    done = check(vpr, vpr_card, "--split", "val")
    assert done.code == 1
    assert "fault: images/val/database does not exist" in done.out


def first(root: Path, folder: str = DATABASE) -> Path:
    return min((root / folder).iterdir())


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an image is missing": (lambda root: first(root).unlink(), f"{DATABASE} holds 2 images; expected 3; unpack"),
    "an image too many": (
        lambda root: (root / QUERIES / name(9)).write_bytes(b"x"),
        f"{QUERIES} holds 3 images; expected 2; move",
    ),
    "an empty file": (lambda root: first(root).write_bytes(b""), "is empty; expected images; unpack or download again"),
    "a pointer of git-lfs": (
        lambda root: first(root).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "is left in git-lfs; expected images; run `git lfs pull`",
    ),
    "a broken link": (
        lambda root: (first(root).rename(root / "gone.jpg"), (root / DATABASE / name(0)).symlink_to("nowhere.jpg")),
        "is linked to what is not there; expected images; put what they pointed to back",
    ),
    "a name without position": (
        lambda root: first(root).rename(root / DATABASE / "a.jpg"),
        f"{DATABASE}/a.jpg is without a position; expected names like @utm_east",
    ),
    "another zone": (
        lambda root: first(root).rename(root / DATABASE / name(0, "54@S")),
        "in UTM zone 54S; expected zone 17T",
    ),
    "png and jpg": (
        lambda root: shutil.copy(first(root), first(root).with_suffix(".png")),
        "there with several extensions; expected each image once",
    ),
    "query for queries": (
        lambda root: (root / QUERIES).rename(root / "images/test/query"),
        "images/test/query is there, images/test/queries is not",
    ),
    "gallery for database": (
        lambda root: (root / DATABASE).rename(root / "images/test/gallery"),
        "images/test/gallery is there, images/test/database is not",
    ),
    "no queries at all": (
        lambda root: shutil.rmtree(root / QUERIES),
        f"{QUERIES} does not exist; expected a folder with the images of split test",
    ),
    "raw names of Pittsburgh": (
        lambda root: first(root).rename(root / DATABASE / "000000_pitch1_yaw1.jpg"),
        "000000_pitch1_yaw1.jpg has a raw name; expected @utm_east@utm_north@...@.jpg; run format_pitts-mini.py",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_mend(vpr: Path, vpr_card: Path, mistake: str):
    make, sentence = MISTAKES[mistake]
    make(vpr)
    done = check(vpr, vpr_card)
    assert done.code == 1
    assert sentence in done.out


def test_a_folder_too_high_or_too_low_is_told_which_to_give(vpr: Path, vpr_card: Path, tmp_path: Path):
    for given in (tmp_path, vpr / "images", vpr / "images/test"):
        done = check(given, vpr_card)
        assert done.code == 1
        assert done.out.splitlines()[0].endswith(f"expected the root of the data set; give {vpr}")


def test_archives_that_wait_to_be_unpacked_are_named(tmp_path: Path, vpr_card: Path):
    root = tmp_path / "download"
    fill(root, ["pitts.tar.gz", "more.zip"])
    done = check(root, vpr_card)
    assert done.code == 1
    assert f"note: more.zip, pitts.tar.gz in {root}; expected archives unpacked; unpack it here" in done.out


def test_what_macos_leaves_is_a_note(vpr: Path, vpr_card: Path):
    (vpr / DATABASE / "._a.jpg").write_bytes(b"x")
    (vpr / ".DS_Store").write_bytes(b"x")
    done = check(vpr, vpr_card)
    assert done.code == 0
    assert "note: 2 files are left by macOS" in done.out


def test_msls_passes_as_published(msls: Path, tmp_path: Path):
    done = check(msls, write_card(tmp_path, MSLS))
    assert done.code == 0, done.out


MSLS_MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a city is missing": (
        lambda root: shutil.rmtree(root / "train_val/sf"),
        "train_val/sf/database/images does not exist",
    ),
    "the metadata are missing": (
        lambda root: [path.unlink() for path in root.rglob("*.csv")],
        "such as train_val/cph/database/raw.csv; expected raw.csv, postprocessed.csv, seq_info.csv, subtask_index.csv",
    ),
    "an image is missing": (
        lambda root: (root / "train_val/cph/query/images/c.jpg").unlink(),
        "train_val/cph/query/images/c.jpg is missing; expected the 2 images of train_val/cph/query/raw.csv; unpack",
    ),
    "tables of another version": (
        lambda root: write_rows(root / "train_val/cph/database/raw.csv", ["key", "pano"], [["a", "False"]]),
        "the tables of split val list 3 database images that are no panoramas; expected 4",
    ),
    "test lies in train_val": (lambda root: (root / "train_val/test").mkdir(), "train_val/test is there; expected"),
}


@pytest.mark.parametrize("mistake", MSLS_MISTAKES)
def test_a_mistake_with_msls_is_named_with_its_mend(msls: Path, tmp_path: Path, mistake: str):
    make, sentence = MSLS_MISTAKES[mistake]
    make(msls)
    done = check(msls, write_card(tmp_path, MSLS))
    assert done.code == 1
    assert sentence in done.out


def test_train_val_itself_is_a_level_too_low(msls: Path, tmp_path: Path):
    done = check(msls / "train_val", write_card(tmp_path, MSLS))
    assert done.code == 1
    assert done.out.splitlines()[0].endswith(f"give {msls}")


def test_hpatches_passes_and_its_mistakes_are_named(hpatches: Path, tmp_path: Path):
    card = write_card(tmp_path, HPATCHES)
    assert check(hpatches, card).code == 0
    assert f"give {hpatches}" in check(tmp_path, card).out
    (hpatches / "i_one/H_1_3").unlink()
    assert "i_one/H_1_3 is missing or empty" in check(hpatches, card).out
    shutil.rmtree(hpatches / "v_two")
    assert "1 sequences i_... and v_...; expected 2" in check(hpatches, card).out
    (hpatches / "i_one/ref.png").write_bytes(b"x")
    done = check(hpatches, card)
    assert (done.code, "download hpatches-sequences-release instead" in done.out) == (1, True)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    root = tmp_path / "frames"
    fill(root / "summer", [f"{number:04d}.jpg" for number in range(3)])
    fill(root / "winter", [f"{number:04d}.jpg" for number in range(2)])
    return root


def test_lay_out_links_folders_of_any_name_and_leaves_them_as_they_are(frames: Path, tmp_path: Path):
    before, out = snapshot(frames), tmp_path / "out"
    chosen = ("--database", "summer", "--queries", "winter")
    done = prepare("lay-out", "mini", frames, "--out", out, "--card", write_card(tmp_path, FOLDERS), *chosen)
    assert (done.code, done.err) == (0, "")
    assert f"{out / 'ref'} -> {frames / 'summer'}" in done.out
    assert (out / "query").readlink() == frames / "winter"
    assert snapshot(frames) == before
    dataset = read_places(out, "folders", Protocol(database="ref", queries="query", frame_tolerance=1))
    assert [rows.tolist() for rows in dataset.positives] == [[0, 1], [0, 1, 2]]


def test_lay_out_finds_folders_under_the_names_in_use(tmp_path: Path, vpr_card: Path):
    source, out = tmp_path / "source", tmp_path / "out"
    fill(source / "gallery", [name(number) for number in range(3)])
    fill(source / "query", [name(number) for number in range(2)])
    done = prepare("lay-out", "mini", source, "--out", out, "--card", vpr_card, "--split", "test")
    assert done.code == 0
    assert (out / DATABASE).resolve() == source / "gallery"
    assert read_places(out, "vpr", Protocol(split="test")).queries.records


def test_lay_out_ends_with_a_check(frames: Path, tmp_path: Path):
    (frames / "winter/0000.jpg").unlink()
    chosen = ("--database", "summer", "--queries", "winter")
    card = write_card(tmp_path, FOLDERS)
    done = prepare("lay-out", "mini", frames, "--out", tmp_path / "out", "--card", card, *chosen)
    assert done.code == 1
    assert "query holds 1 images; expected 2" in done.out


def test_a_link_whose_target_is_gone_is_named(frames: Path, tmp_path: Path):
    card, out = write_card(tmp_path, FOLDERS), tmp_path / "out"
    prepare("lay-out", "mini", frames, "--out", out, "--card", card, "--database", "summer", "--queries", "winter")
    shutil.rmtree(frames / "winter")
    assert "query is a link that leads nowhere" in check(out, card).out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["check", "pitts31k", "."], "no card 'pitts31k'; there are amstertime"),
        (["check", "pitts30k", "nowhere"], "nowhere does not exist; expected a folder"),
        (["check", "pitts30k", ".", "--split", "tset"], "pitts30k has no split 'tset'; it has test, val, train"),
        (["check", "pitts30k", ".", "--card", "nowhere.toml"], "card nowhere.toml cannot be read"),
        (["lay-out", "msls", ".", "--out", "out"], "read as it is published; there is nothing to lay out"),
        (["lay-out", "sped", ".", "--out", "../out"], "no folder ref, database, db, gallery"),
        (["lay-out", "sped", ".", "--out", "full"], "full is not empty"),
        (["lay-out", "sped", ".", "--out", "out"], "which is left as it is"),
        (["lay-out", "sped", "."], "required: --out"),
        (["tidy"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_usage_is_said_on_stderr_with_exit_code_2(tmp_path: Path, arguments: list[str], complaint: str):
    here = tmp_path / "here"
    fill(here / "full", ["a.jpg"])
    done = subprocess.run(
        [sys.executable, str(PREPARE), *arguments], cwd=here, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
