"""From aligned image pairs to a network that `align`, `query` and `evaluate` use, through the program itself."""

import json

import pytest
from aligned_folder import write_aligned_pairs

import vpr_dhe
from vpr_dhe.models.network_file import load_network

TINY = ("--steps", 1, "--batch-size", 2, "--validation-pairs", 1, "--device", "cpu", "--width", 8, "--iterations", 1)


@pytest.fixture
def pairs(tmp_path):
    write_aligned_pairs(tmp_path / "pairs", 4)
    return tmp_path / "pairs"


def align(run, pairs, method, weights):
    images = (pairs / "a/000.png", pairs / "b/001.png")
    code, stdout, stderr = run("align", *images, "--method", method, "--weights", weights, "--format", "json")
    document = json.loads(stdout)
    assert document["method"] == method
    # After a step, a network may still fold an image over; that is no homography, and said so.
    assert (code == 0) == (document["homography"] is not None), stderr
    found = vpr_dhe.align(*images, method=method, weights=[weights])
    assert document["homography"] == (None if found.homography is None else pytest.approx(found.homography))
    return document


@pytest.mark.slow
def test_iterative_is_trained_and_then_aligns_and_is_evaluated(run, pairs, tmp_path):
    out = tmp_path / "run"
    code, stdout, stderr = run("train", "iterative", pairs, "--out", out, *TINY, "--training-data", "textures, CC0")
    assert (code, f"{out}/best.safetensors" in stdout) == (0, True), stderr
    assert "training: 3 pairs of pairs; validation: 1 pairs of pairs" in stderr
    file = load_network(out / "best.safetensors")
    assert (file.method, file.training_data, file.settings["width"]) == ("iterative", "textures, CC0", 8)
    align(run, pairs, "iterative", out / "best.safetensors")
    weights = ("--verifier", "magsac,iterative", "--weights", out / "best.safetensors", "--device", "cpu")
    code, stdout, stderr = run("evaluate-pairs", pairs, *weights)
    assert (code, "iterative" in stdout) == (0, True), stderr


@pytest.mark.slow
def test_what_was_learned_from_single_photos_is_learned_on_from(run, pairs, tmp_path):
    def train(method, name, *options):
        code, _, stderr = run("train", method, pairs, "--out", tmp_path / name, *TINY, *options)
        assert code == 0, stderr
        return load_network(tmp_path / name / "best.safetensors"), stderr

    _, said = train("iterative", "photos", "--unpaired")
    assert "training: 7 photos of pairs in random contrasts; validation: 1 photos of pairs" in said
    code, _, said = run("train", "iterative", pairs, "--out", tmp_path / "neither", *TINY, "--unpaired", "--no-labels")
    assert (code, "leave out --no-labels" in said, (tmp_path / "neither").exists()) == (2, True, False)
    code, _, said = run("train", "iterative", pairs, "--out", tmp_path / "neither", *TINY, "--pairs", pairs)
    assert (code, "give --unpaired" in said, (tmp_path / "neither").exists()) == (2, True, False)
    _, said = train("iterative", "both", "--unpaired", "--pairs", pairs)
    assert "pairs of pairs, 1 times; validation" in said
    start = ("--start", tmp_path / "photos/best.safetensors")
    for method, options in (
        ("iterative", ("--no-labels",)),
        ("alto", ("--encoder", "resnet18", "--no-alternation", "--no-pooling")),
        ("sshnet", ("--transfer", "convolutional", "--joint")),
    ):
        file, _ = train(method, method, *start, *options)
        assert file.training_data == "trained by the user on pairs; started from: trained by the user on pairs"


@pytest.mark.slow
def test_methods_without_labels_are_trained_and_then_align(run, pairs, tmp_path):
    teacher = tmp_path / "sshnet/best.safetensors"
    for method, options in (
        ("alto", ("--encoder", "lite-vlad")),
        ("sshnet", ("--transfer", "convolutional")),
        ("sshnet-d", ("--teacher", teacher)),
    ):
        code, _, stderr = run("train", method, pairs, "--out", tmp_path / method, *TINY, *options)
        assert code == 0, stderr
        weights = tmp_path / method / "best.safetensors"
        assert load_network(weights).training_data.startswith("trained by the user on pairs")
        align(run, pairs, method, weights)


def test_what_cannot_be_trained_or_used_is_said_in_one_sentence(run, pairs, tmp_path):
    def complaint(*arguments):
        code, stdout, stderr = run(*arguments)
        assert (code, stdout) == (2, "")
        assert "Traceback" not in stderr
        return stderr.splitlines()[-1]

    out = ("--out", tmp_path / "run", "--device", "cpu")
    assert "does not exist; expected a folder of image pairs" in complaint("train", "iterative", tmp_path / "x", *out)
    assert "none of the layouts of image pairs" in complaint("train", "iterative", pairs / "a", *out)
    assert "does not exist" in complaint("train", "sshnet-d", pairs, "--teacher", tmp_path / "x.safetensors", *out)
    assert "holds no weights" in complaint("train", "sshnet", pairs, "--vgg", pairs / "a/000.png", *out)
    stage = ("train", "iterative", pairs, *out)
    assert "does not exist" in complaint(*stage, "--start", tmp_path / "x.safetensors")
    images = (pairs / "a/000.png", pairs / "b/000.png")
    assert "needs its own network" in complaint("align", *images, "--method", "iterative")
