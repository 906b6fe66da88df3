"""`vpr-dhe train` from photos to a model that `evaluate` verifies with."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from little_gsv_cities import write_gsv_cities
from random_models import random_model

from vpr_dhe.models.model_file import load_model
from vpr_dhe.models.network_file import load_network
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town


def vpr_dhe(*arguments, expect=0, **options):
    command = [sys.executable, "-m", "vpr_dhe", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, **options)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for number in range(3):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (30, 30, 3), np.uint8))
        coarse.resize((420, 420), PIL.Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


SMALL = ("--warmup-steps", 1, "--batch-size", 1, "--device", "cpu", "--save-every", 1)


@pytest.mark.slow
def test_a_trained_head_verifies(photos, tmp_path):
    run = tmp_path / "run"
    first = vpr_dhe("train", "dhe", photos, "--out", run, "--steps", 1, *SMALL, "--training-data", "textures")
    assert f"{run}/best.safetensors" in first.stdout
    assert "3 photos of" in first.stderr
    vpr_dhe("train", "dhe", photos, "--out", run, "--steps", 2, *SMALL, "--training-data", "textures")
    steps = {line.split(",")[0] for line in (run / "log.csv").read_text().splitlines()[1:]}
    assert steps == {"1", "2"}
    other = vpr_dhe("train", "dhe", photos, "--out", run, "--steps", 2, *SMALL, "--seed", 1, expect=2)
    assert "seed" in other.stderr
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:8]
    write_town(tmp_path / "town", town, database, town.query_cameras(2, 1, database))
    model = ("--model", run / "best.safetensors", "--verifier", "dhe", "--rerank", 2, "--cache", "none")
    done = vpr_dhe("evaluate", tmp_path / "town", *model, "--device", "cpu")
    assert "dhe" in done.stdout


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(photos, tmp_path):
    run = tmp_path / "run"
    # Where tests run in the background, SIGINT is ignored, and what they start inherits that.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import vpr_dhe.__main__"
    command = [sys.executable, "-c", start, "train", "dhe", photos, "--out", run, "--steps", 10000, *SMALL]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while not (run / "state.pt").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "run the command again to continue" in errors
    assert "Traceback" not in errors
    again = vpr_dhe("train", "dhe", photos, "--out", run, "--steps", 10000, *SMALL, "--max-minutes", 0)
    reached = re.search(r"step (\d+) of 10000", again.stderr)
    assert reached
    assert int(reached[1]) > 1


def write_places(folder, count):
    """Places 100 m apart, each with one query, in the standard layout."""
    rng = np.random.default_rng(4)
    for number in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        image = coarse.resize((96, 96), PIL.Image.Resampling.BICUBIC)
        for part, shift_m in (("database", 0), ("queries", 5)):
            (folder / "images/train" / part).mkdir(parents=True, exist_ok=True)
            name = f"@{500_000 + 100 * number + shift_m}@5000000@31@U@.png"
            image.crop((shift_m, 0, 90 + shift_m, 90)).save(folder / "images/train" / part / name)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_places(tmp_path_factory.mktemp("places"), 12)


TINY = ("--steps", 2, "--save-every", 1, "--device", "cpu", "--validation-pairs", 1)


@pytest.mark.parametrize(
    ("loss", "batch_size", "said"),
    [("triplet", 2, "triplets"), ("multi-similarity", 4, "multi-similarity")],
)
def test_a_descriptor_is_trained_by_either_loss(run, places, tmp_path, loss, batch_size, said):
    out = tmp_path / "run"
    network = ("--model", "new:cct_7_7x2_224@64", "--batch-size", batch_size, "--negatives", 2)
    code, stdout, stderr = run("train", "descriptor", places, "--out", out, "--loss", loss, *network, *TINY)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    facts = json.loads((out / "training.json").read_text())
    assert facts["stage"] == f"descriptor, {said}"
    assert (facts["batch_size"], facts["validation_pairs"], facts["seed"]) == (batch_size, 1, 0)
    model = load_model(out / "best.safetensors")
    assert model.training_data == f"random weights; extractor: trained by the user on {places.name}"


def test_gsv_cities_is_recognised(run, tmp_path):
    root = write_gsv_cities(tmp_path / "gsv-cities")
    options = ("--model", "new:cct_7_7x2_224@32", "--device", "cpu", "--steps", 1)
    out = ("--batch-size", 2, "--images-per-place", 3, "--validation-pairs", 1, "--out", tmp_path / "run")
    code, said, stderr = run("train", "descriptor", root, *options, *out)
    assert code == 0, stderr
    facts = json.loads((tmp_path / "run/training.json").read_text())
    assert facts["data"].startswith("gsv-cities: 8 places of 30 photos, 3 at a time")
    assert facts["images_per_place"] == 3
    assert f"{tmp_path}/run/best.safetensors" in said
    asked = ("train", "descriptor", root, *options, "--loss", "triplet", "--out", tmp_path / "other")
    code, _, stderr = run(*asked)
    assert (code, "use --loss multi-similarity" in stderr) == (2, True)


@pytest.mark.slow
def test_a_network_is_trained_from_nothing_and_then_describes(run, photos, tmp_path):
    out = tmp_path / "run"
    network = ("--model", "new:cct_7_7x2_224@64", "--batch-size", 2, "--half-size-steps", 1)
    code, stdout, stderr = run("train", "pretrain", photos, "--out", out, *network, *TINY, "--validation-pairs", 2)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    facts = json.loads((out / "training.json").read_text())
    assert (facts["stage"], facts["half_size_steps"], facts["steps"]) == ("pretrain", 1, 2)
    model = ("--model", out / "best.safetensors", "--device", "cpu")
    code, _, stderr = run("index", photos, "--out", tmp_path / "index", *model)
    assert code == 0, stderr
    code, stdout, stderr = run("query", tmp_path / "index", photos / "1.png", "--format", "hloc", "--verifier", "none")
    assert (code, stdout.split()[1]) == (0, "1.png"), stderr


@pytest.mark.slow
def test_a_student_is_taught_and_then_indexes(run, photos, tmp_path):
    out, teacher = tmp_path / "run", tmp_path / "teacher.safetensors"
    replace(random_model("timm-cnn:resnet10t", "vlad", None, 64), name="little").save(teacher)
    network = ("--teacher", teacher, "--model", "new:cct_7_7x2_224@32", "--view-side", 32, "--batch-size", 2)
    few = ("--steps", 2, "--save-every", 1, "--device", "cpu", "--validation", photos, "--validation-photos", 2)
    code, stdout, stderr = run("train", "distillation", photos, "--out", out, *network, *few)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    facts = json.loads((out / "training.json").read_text())
    assert (facts["stage"], facts["view_width"], facts["batch_size"]) == ("distillation", 32, 2)
    assert "distillation of little: trained by the user on" in load_model(out / "best.safetensors").training_data
    code, _, stderr = run("index", photos, "--out", tmp_path / "index", "--model", out / "best.safetensors")
    assert code == 0, stderr
    sides = (*network[:2], "--model", out / "best.safetensors", "--view-side", 40)
    code, _, stderr = run("train", "distillation", photos, "--out", tmp_path / "other", *sides, *few)
    assert (code, "which do not divide an input of 40 x 40" in stderr) == (2, True), stderr


@pytest.mark.slow
def test_network_and_head_are_trained_together(run, tmp_path):
    places, out = write_places(tmp_path / "places", 3), tmp_path / "run"
    network = ("--model", "new:cct_7_7x2_224@384", "--first-trained-block", 6, "--batch-size", 1)
    how = ("--mining", "random", "--negatives", 1, "--rei-weight", 10)
    code, stdout, stderr = run("train", "joint", places, "--out", out, *network, *how, *TINY, "--steps", 1)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    facts = json.loads((out / "training.json").read_text())
    assert (facts["stage"], facts["rei_weight"], facts["mining_mining"]) == ("joint", 10, "random")
    assert load_model(out / "best.safetensors").architecture.head == "dhe"


@pytest.mark.slow
def test_a_fine_network_is_trained_and_then_aligns(run, photos, tmp_path):
    out = tmp_path / "run"
    small = ("--crop-px", 64, "--image-px", 96, "--batch-size", 1, "--warmup-steps", 1, "--min-inliers", 8)
    code, stdout, stderr = run("train", "ransac-flow", photos, "--out", out, *small, *TINY)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    assert load_network(out / "best.safetensors").settings["head_bias"] is False  # as published
    weights = ("--weights", out / "best.safetensors", "--device", "cpu")
    pair = (photos / "1.png", photos / "1.png", "--method", "ransac-flow")
    overlay = tmp_path / "overlay.png"
    code, stdout, stderr = run("align", *pair, *weights, "--format", "json", "--overlay", overlay)
    assert code == 0, stderr
    document = json.loads(stdout)
    assert np.allclose(document["homography"], np.eye(3), atol=0.05)
    assert 0 <= document["matchable_area"] <= 1
    with PIL.Image.open(overlay) as picture:
        assert picture.size == (2 * 420 + 12, 2 * 420 + 12)
    run("index", photos, "--out", tmp_path / "index", "--device", "cpu")
    code, stdout, stderr = run(
        "query", tmp_path / "index", photos / "1.png", "--verifier", "ransac-flow", *weights, "--format", "json"
    )
    assert code == 0, stderr
    best = json.loads(stdout)["queries"][0]["matches"][0]
    assert (best["image"], 0 <= best["matchable_area"] <= 1) == ("1.png", True)
    assert "about 10 are usual" in stderr
    # Without the network, the coarse stage answers alone.
    code, stdout, _ = run("align", *pair, "--format", "json")
    document = json.loads(stdout)
    assert (code, "planes" in document, "matchable_area" in document) == (0, True, False)
    assert np.allclose(document["homography"], np.eye(3), atol=0.05)
    code, _, stderr = run("align", *pair, "--weights", photos / "1.png")
    assert (code, "is not a readable safetensors file" in stderr) == (2, True)
    code, _, stderr = run("train", "ransac-flow", photos, "--out", out, "--crop-px", 100)
    assert (code, "expected a multiple of 8" in stderr) == (2, True)


def test_what_cannot_be_trained_is_said_in_one_sentence(run, photos, places, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def complaint(*arguments):
        code, stdout, stderr = run("train", *arguments, "--out", out, "--device", "cpu")
        assert (code, stdout) == (2, "")
        lines = stderr.splitlines()
        assert lines[-1].startswith("error: "), stderr
        assert "Traceback" not in stderr
        return lines[-1]

    network = ("--model", "new:cct_7_7x2_224@64")
    assert "unknown model 'magic'" in complaint("descriptor", places, "--model", "magic")
    assert "is not a network" in complaint("joint", places, "--model", "sift-vlad")
    assert "names no input side" in complaint("descriptor", places, "--model", "new:cct_7_7x2_224")
    assert "2 data sets were given, and triplets are mined in one" in complaint("descriptor", places, photos, *network)
    assert "2 data sets were given, and triplets are mined in one" in complaint("joint", places, photos, *network)
    assert "is not a place data set" in complaint("descriptor", photos, *network)
    assert "needs 24 x 24" in complaint("joint", places, *network)
    assert "fp16 needs a GPU" in complaint("joint", places, *network, "--precision", "fp16")
    assert "does not exist" in complaint("dhe", tmp_path / "nothing")
    assert "does not exist" in complaint("distillation", photos, "--validation", tmp_path / "nothing")
    assert "choose a teacher with one of" in complaint("distillation", photos, "--teacher", "cct-offline")
    assert "sift-vlad' is not a network" in complaint("distillation", photos, "--teacher", "sift-vlad")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert 'pip install "vpr-dhe[train]"' in complaint("dhe", photos)
    assert not out.exists()


def test_a_descriptor_of_patches_is_trained_on_pairs_and_then_aligns(run, photos, tmp_path):
    pairs, out = tmp_path / "pairs", tmp_path / "run"
    for side in ("a", "b"):
        (pairs / side).mkdir(parents=True)
        for number in range(3):
            with PIL.Image.open(photos / f"{number}.png") as photo:
                photo.resize((160, 160)).save(pairs / side / f"{number}.png")
    small = ("--batch-size", 8, "--pairs-per-round", 2, "--patches-per-pair", 16, "--pseudo-siamese")
    code, stdout, stderr = run("train", "weak-descriptor", pairs, "--out", out, *small, *TINY)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    assert "3 pairs (pixel-aligned images" in stderr
    facts = json.loads((out / "training.json").read_text())
    assert (facts["stage"], facts["pseudo_siamese"], facts["decay_steps"]) == ("weak-descriptor", True, 2)
    images = (pairs / "a/1.png", pairs / "b/1.png")
    weights = ("--weights", out / "best.safetensors", "--device", "cpu", "--format", "json")
    code, stdout, stderr = run("align", *images, "--method", "weak-descriptor", *weights)
    assert code in {0, 1}, stderr
    assert json.loads(stdout)["method"] == "weak-descriptor"
    code, _, stderr = run("align", *images, "--method", "weak-descriptor", "--device", "cpu")
    assert (code, "vpr-dhe train weak-descriptor" in stderr) == (2, True)


@pytest.mark.slow
def test_a_trained_network_on_matches_verifies(photos, tmp_path):
    run = tmp_path / "run"
    small = ("--pairs-per-round", 2, "--batch-size", 2, "--validation-pairs", 1, "--device", "cpu")
    first = vpr_dhe("train", "dhe-lite", photos, "--out", run, "--steps", 1, "--decay-steps", 2, *small)
    assert f"{run}/best.safetensors" in first.stdout
    vpr_dhe("train", "dhe-lite", photos, "--out", run, "--steps", 2, *small)
    names = {line.split(",")[1] for line in (run / "log.csv").read_text().splitlines()[1:]}
    assert {"validation/median_corner_error_px", "validation/magsac_median_corner_error_px"} < names
    image = next(iter(sorted(photos.iterdir())))
    vpr_dhe("index", photos, "--out", tmp_path / "index", "--model", run / "best.safetensors", "--device", "cpu")
    done = vpr_dhe("query", tmp_path / "index", image, "--verifier", "dhe-lite", "--rerank", 2, "--device", "cpu")
    assert image.name in done.stdout


LITE = ("--pairs-per-round", 2, "--batch-size", 2, "--validation-pairs", 1, "--device", "cpu", "--steps", 1)


def test_a_limit_that_ends_in_the_preparation_is_said_and_the_run_goes_on(run, photos, tmp_path):
    out = tmp_path / "run"
    code, stdout, stderr = run("train", "dhe-lite", photos, "--out", out, *LITE, "--max-minutes", 0)
    assert (code, stdout) == (1, "")
    error = stderr.splitlines()[-1]
    assert error.startswith(
        "error: the time limit of 0 min ended at 1 of 2 pairs of the next round, before the first step"
    )
    assert "holds nothing trained yet; run the command again with a longer --max-minutes" in stderr
    code, stdout, stderr = run("train", "dhe-lite", photos, "--out", out, *LITE)
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("vpr_dhe.training.sources.open_training_data", "nothing is kept yet; run the command again to start"),
        ("vpr_dhe.training.sources.warps.decode_named", "nothing is kept yet; run the command again to start"),
        (
            "vpr_dhe.training.dhe_lite.validation.MatchedValidation.measure",
            "holds the state after step 1; run the command",
        ),
    ],
)
def test_ctrl_c_says_what_is_kept(run, photos, tmp_path, monkeypatch, broken, said):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(broken, interrupted)
    code, stdout, stderr = run("train", "dhe-lite", photos, "--out", tmp_path / "run", *LITE)
    assert (code, stdout) == (1, "")
    assert stderr.splitlines()[-1].startswith("interrupted: ")
    assert said in stderr
    assert "Traceback" not in stderr


def test_ctrl_c_in_a_fit_says_what_is_kept(run, tmp_path, monkeypatch):
    folder, rng = tmp_path / "photos", np.random.default_rng(5)
    folder.mkdir()
    for number in range(6):
        PIL.Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
    fit = ("--words", 2, "--bands", 1, "--dimension", 2, "--device", "cpu", "--out", tmp_path / "vlad.safetensors")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vpr_dhe.training.vlad.network.fit_vocabulary", interrupted)
        code, stdout, stderr = run("train", "vlad", "new:cct_7_7x2_224@64", folder, *fit)
    assert (code, stdout) == (1, "")
    assert "vlad.safetensors.partial holds what was finished; run the command again to continue" in stderr
    assert run("train", "vlad", "new:cct_7_7x2_224@64", folder, *fit)[0] == 0
    assert not (tmp_path / "vlad.safetensors.partial").exists()
    monkeypatch.setattr("vpr_dhe.training.whitening.whiten", interrupted)
    command = ("train", "whitening", tmp_path / "vlad.safetensors", folder, "--out", tmp_path / "w.safetensors")
    code, _, stderr = run(*command, "--device", "cpu")
    assert (code, "nothing is kept yet" in stderr) == (1, True)
