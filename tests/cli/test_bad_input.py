"""A user's mistakes: one clear sentence, the right exit code, and nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for number in range(6):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((320, 240), PIL.Image.Resampling.NEAREST).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def index(photos, tmp_path, run) -> Path:
    assert run("index", photos, "--out", tmp_path / "index")[0] == 0
    return tmp_path / "index"


def one_error_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def test_folders_that_cannot_be_indexed(run, tmp_path, photos):
    code, _, stderr = run("index", tmp_path / "none", "--out", tmp_path / "index")
    assert (code, "does not exist" in one_error_line(stderr)) == (2, True)
    (tmp_path / "empty").mkdir()
    code, _, stderr = run("index", tmp_path / "empty", "--out", tmp_path / "index")
    assert (code, "holds no images" in one_error_line(stderr)) == (2, True)
    assert not (tmp_path / "index").exists()
    code, _, stderr = run("index", photos, "--out", tmp_path / "index", "--model", "resnet")
    assert (code, "unknown model" in one_error_line(stderr)) == (2, True)
    assert not (tmp_path / "index").exists()


def test_an_index_is_not_overwritten(run, index, photos, tmp_path):
    before = (index / "manifest.json").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.jpg").write_bytes((photos / "1.jpg").read_bytes())
    code, _, stderr = run("index", other, "--out", index)
    assert (code, f"indexes {photos}" in one_error_line(stderr)) == (2, True)
    code, _, stderr = run("index", photos, "--out", index, "--codec", "pca64-int8")
    assert (code, "stores local maps as" in one_error_line(stderr)) == (2, True)
    code, _, stderr = run("index", photos, "--out", index, "--add", "--prune")
    assert (code, "use one of them" in one_error_line(stderr)) == (2, True)
    code, _, stderr = run("index", photos, "--out", photos)
    assert (code, "already exists" in one_error_line(stderr)) == (2, True)
    assert (index / "manifest.json").read_bytes() == before


def test_every_kind_of_file_has_a_clear_outcome(run, photos, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    photo = PIL.Image.open(photos / "0.jpg")
    photo.save(folder / "good.jpg")
    photo.convert("L").save(folder / "grey.jpg")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=exif)
    PIL.Image.fromarray(np.arange(320 * 240, dtype=np.uint16).reshape(240, 320)).save(folder / "sixteen.png")
    PIL.Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    PIL.Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    (folder / "words.jpg").write_text("these are words")
    (folder / "truncated.jpg").write_bytes((photos / "0.jpg").read_bytes()[:2000])
    code, stdout, stderr = run("index", folder, "--out", tmp_path / "index")
    assert code == 0
    assert "5 images (5 added, 4 skipped)" in stdout
    skipped = sorted(line.split(":")[0] for line in stderr.splitlines() if line.startswith("skipped"))
    assert skipped == [f"skipped {name}" for name in ("bomb.png", "tiny.png", "truncated.jpg", "words.jpg")]
    assert run("check", tmp_path / "index")[0] == 0
    code, _, stderr = run("index", folder, "--out", tmp_path / "strict", "--strict")
    assert (code, "bomb.png" in one_error_line(stderr)) == (2, True)


def test_a_folder_of_nothing_but_broken_images(run, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "words.jpg").write_text("these are words")
    code, _, stderr = run("index", folder, "--out", tmp_path / "index")
    assert (code, "none of the 1 images" in one_error_line(stderr)) == (2, True)


def test_adding_takes_only_what_is_new(run, index, photos):
    later = photos / "later.jpg"
    PIL.Image.open(photos / "0.jpg").rotate(180).save(later)
    try:
        code, stdout, _ = run("index", photos, "--out", index, "--add")
    finally:
        later.unlink()  # other tests index this folder
    assert (code, "7 images (1 added" in stdout) == (0, True)


def test_images_larger_than_allowed(run, index, photos):
    code, _, stderr = run("query", index, photos / "0.jpg", "--max-megapixels", 0.001)
    assert (code, "raise --max-megapixels" in stderr) == (2, True)
    code, _, stderr = run("index", photos, "--out", index.parent / "small", "--max-megapixels", 0.001)
    assert (code, "none of the 6 images" in one_error_line(stderr)) == (2, True)


def test_queries_that_cannot_be_read(run, index, photos, tmp_path):
    code, _, stderr = run("query", index, tmp_path / "none.jpg")
    assert (code, "does not exist" in one_error_line(stderr)) == (2, True)
    (tmp_path / "words.jpg").write_text("these are words")
    code, stdout, stderr = run("query", index, tmp_path / "words.jpg", "--format", "json")
    assert (code, "not an image" in json.loads(stdout)["queries"][0]["error"]) == (2, True)
    code, stdout, _ = run("query", index, tmp_path / "words.jpg", photos / "1.jpg", "--format", "json")
    assert code == 0
    broken, whole = json.loads(stdout)["queries"]
    assert (broken["matches"], whole["matches"][0]["image"]) == ([], "1.jpg")


def test_folders_that_are_no_index(run, photos, tmp_path):
    code, _, stderr = run("query", tmp_path / "none", photos / "1.jpg")
    assert (code, "does not exist" in one_error_line(stderr)) == (2, True)
    code, _, stderr = run("query", photos, photos / "1.jpg")
    assert (code, "holds no manifest.json" in one_error_line(stderr)) == (2, True)


@pytest.mark.parametrize("name", ["rows.bin", "vectors.f32", "local_maps.bin", "images.jsonl"])
def test_a_flipped_byte_never_answers(run, index, photos, name):
    path = next((index / "segments").iterdir()) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    code, _, stderr = run("query", index, photos / "1.jpg")
    assert (code, "checksum" in one_error_line(stderr)) == (1, True)
    assert run("check", index)[0] == 1


def test_an_index_of_another_model(run, index, photos, tmp_path):
    from vpr_dhe.models.catalogue import open_model
    from vpr_dhe.models.model_file import ModelFile

    model = open_model("sift-vlad")
    tensors = dict(model.tensors) | {"aggregator.offset": model.tensors["aggregator.offset"] + 1}
    facts = (model.name, model.architecture, model.preprocessing, model.licence, model.training_data)
    ModelFile(*facts, tensors).save(tmp_path / "other.safetensors")
    code, _, stderr = run("query", index, photos / "1.jpg", "--model", tmp_path / "other.safetensors")
    assert (code, "was made with model" in one_error_line(stderr)) == (2, True)


def test_verifiers_that_cannot_work(run, index, photos):
    code, _, stderr = run("query", index, photos / "1.jpg", "--verifier", "dhe")
    line = one_error_line(stderr)
    assert (code, "magsac" in line, "poselib" in line) == (2, True, True)
    code, _, stderr = run("query", index, photos / "1.jpg", "--verifier", "magic")
    assert (code, "unknown verifier" in one_error_line(stderr)) == (2, True)


def test_evaluations_that_cannot_be_made(run, tmp_path, photos):
    code, _, stderr = run("evaluate", tmp_path / "none")
    assert (code, "does not exist" in one_error_line(stderr)) == (2, True)
    code, _, stderr = run("evaluate", photos)
    assert (code, "none of the known layouts (msls: " in one_error_line(stderr)) == (2, True)
    for option, value, complaint in (
        ("--recall-at", "1,x", "--recall-at is '1,x'"),
        ("--denominator", "some", "expected all or with-positive"),
        ("--layout", "pancake", "unknown layout"),
        ("--out", tmp_path / "no" / "out.json", "does not exist"),
        ("--predictions", photos, "is not empty"),
    ):
        code, _, stderr = run("evaluate", photos, option, value)
        assert (code, complaint in one_error_line(stderr)) == (2, True), stderr


@pytest.fixture
def places(photos, tmp_path) -> Path:
    """A small data set in the standard layout."""
    for part, shift in (("database", 0), ("queries", 10)):
        (tmp_path / "places/images/test" / part).mkdir(parents=True)
        for number in range(3):
            name = f"@{1000 * number + shift:.2f}@{5_000_000:.2f}@31@U@.jpg"
            (tmp_path / "places/images/test" / part / name).write_bytes((photos / f"{number}.jpg").read_bytes())
    return tmp_path / "places"


def test_malformed_data_sets_are_explained_in_one_sentence(run, places, photos):
    database = places / "images/test/database"
    queries = places / "images/test/queries"

    def complaint(*options: object) -> str:
        code, stdout, stderr = run("evaluate", places, "--cache", "none", *options)
        assert (code, stdout) == (2, "")
        return one_error_line(stderr)

    assert "none of the 3 queries has a positive" in complaint("--radius-m", 5)
    assert "layout vpr has no --frame-tolerance; it takes --database" in complaint("--frame-tolerance", 1)
    assert "val does not exist; found test" in complaint("--split", "val")
    assert "unknown verifier" in complaint("--verifier", "magsac,magic")
    assert "cannot be made" in complaint("--cache", photos / "0.jpg" / "cache")
    (queries / "holiday.jpg").write_bytes((photos / "0.jpg").read_bytes())
    assert "holiday.jpg has no position; expected a name like @utm_east" in complaint()
    (queries / "holiday.jpg").unlink()
    listed = places / "images/test/database_images_paths.txt"
    name = sorted(path.name for path in database.iterdir())[0]
    listed.write_text(f"{name}\n{name}\n")
    assert "is listed 2 times; list each image once" in complaint()
    listed.unlink()
    for path in queries.iterdir():
        path.unlink()
    assert "holds no images" in complaint()


def test_a_query_without_a_right_answer_is_named(run, places, photos):
    lost = places / "images/test/queries/@99999.00@5000000.00@31@U@.jpg"
    lost.write_bytes((photos / "0.jpg").read_bytes())
    code, stdout, _ = run("evaluate", places, "--cache", "none", "--verifier", "none")
    assert (code, f"1 query without a positive in the database, such as {lost.name}" in stdout) == (0, True)
    assert "75.0" in stdout
    code, stdout, _ = run("evaluate", places, "--cache", "none", "--verifier", "none", "--denominator", "with-positive")
    assert (code, "100.0" in stdout, "left out of recall" in stdout) == (0, True, True)


def test_a_model_file_that_was_cut_short(run, photos, tmp_path):
    from vpr_dhe.models.catalogue import open_model

    path = tmp_path / "model.safetensors"
    open_model("sift-vlad").save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    code, _, stderr = run("index", photos, "--out", tmp_path / "index", "--model", path)
    assert (code, "not a readable safetensors file" in one_error_line(stderr)) == (2, True)
    path.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    code, _, stderr = run("index", photos, "--out", tmp_path / "index", "--model", path)
    assert (code, "checksum" in one_error_line(stderr)) == (2, True)


def test_a_folder_that_cannot_be_written(run, photos, tmp_path):
    (tmp_path / "file").touch()
    code, _, stderr = run("index", photos, "--out", tmp_path / "file" / "index")
    assert code in {1, 2}
    one_error_line(stderr)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("query", "nowhere", "photo.jpg"), "nowhere does not exist"),
        (("check", "."), "holds no manifest.json"),
        (("index", ".", "--out", "index", "--model", "sift-vlda"), "did you mean 'sift-vlad'?"),
        (("evaluate", ".", "--model", "lost.safetensors"), "model file lost.safetensors does not exist"),
    ],
)
def test_typing_mistakes_are_told_before_torch_is_imported(arguments, expected, tmp_path):
    program = (
        "import sys\nfrom vpr_dhe.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    print(ended.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2 False\n"
    assert expected in one_error_line(done.stderr)
