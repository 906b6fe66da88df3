"""`vpr-dhe train` from photos to a model that `evaluate` verifies with."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.places.synthetic_town import SyntheticTown, write_town


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
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors


def test_bad_usage_is_said_in_one_line(photos, tmp_path):
    out = ("--out", tmp_path / "run", "--device", "cpu")
    assert "does not exist" in vpr_dhe("train", "dhe", tmp_path / "nothing", *out, expect=2).stderr
    assert "fp16 needs a GPU" in vpr_dhe("train", "dhe", photos, *out, "--precision", "fp16", expect=2).stderr
    (tmp_path / "accelerate.py").write_text("raise ImportError('not here')")
    without = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    missing = vpr_dhe("train", "dhe", photos, *out, expect=2, env=without)
    assert 'pip install "vpr-dhe[train]"' in missing.stderr
    assert not (tmp_path / "run").exists()


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
