"""`train vlad` and `train whitening`: the fits that offline models are made by, through their commands."""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.model_file import load_model
from vpr_dhe.training.vlad import network


@pytest.fixture
def textures(tmp_path):
    folder, rng = tmp_path / "textures", np.random.default_rng(5)
    folder.mkdir()
    for number in range(20):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((160, 120), PIL.Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.slow
def test_sift_vlad_is_fitted_to_a_folder(run, textures, tmp_path):
    out = tmp_path / "fitted.safetensors"
    sizes = ("--dimension", 16, "--words", 8, "--training-data", "textures, CC0")
    code, stdout, stderr = run("train", "vlad", "sift-vlad", textures, "--out", out, *sizes)
    assert (code, stdout) == (0, f"{out}: sift-vlad, fitted to 20 images\n"), stderr
    model = load_model(out)
    assert (model.training_data, model.tensors["aggregator.projection"].shape[0]) == ("textures, CC0", 16)


@pytest.mark.slow
def test_a_vlad_of_a_network_is_fitted_indexed_and_exported(run, exported, textures, tmp_path):
    out = tmp_path / "fitted.safetensors"
    sizes = ("--dimension", 8, "--words", 4, "--bands", 3, "--images-limit", 16, "--half", "--device", "cpu")
    code, stdout, stderr = run("train", "vlad", exported.model, textures, "--out", out, *sizes)
    assert (code, stdout) == (0, f"{out}: tiny-netvlad, fitted to 16 images\n"), stderr
    assert not out.with_name("fitted.safetensors.partial").exists()
    model, before = load_model(out), load_model(exported.model)
    assert (model.licence, model.architecture.aggregator) == (before.licence, "netvlad")
    assert model.training_data == "random weights; vocabulary and projection: trained by the user on textures"
    assert {value.dtype for value in model.part("backbone").values()} == {torch.float16}
    index = tmp_path / "index"
    assert run("index", textures, "--out", index, "--model", out, "--device", "cpu")[0] == 0
    code, stdout, stderr = run("query", index, textures / "07.png", "--verifier", "none", "--format", "json")
    assert code == 0, stderr
    assert json.loads(stdout)["queries"][0]["matches"][0]["image"] == "07.png"
    code, stdout, stderr = run("export", out, "--out", tmp_path / "onnx")
    assert code == 0, stderr
    assert load_extractor(str(tmp_path / "onnx")).spec.dimension == 8


@pytest.mark.slow
def test_a_local_head_is_trained_and_indexed(run, exported, textures, tmp_path):
    steps = ("--steps", 3, "--validate-every", 3, "--batch-size", 2, "--device", "cpu")
    options = ("--model", exported.model, "--dimension", 8, "--training-data", "textures, CC0")
    code, stdout, stderr = run("train", "local", textures, "--out", tmp_path / "run", *options, *steps)
    assert code == 0, stderr
    out = tmp_path / "run/best.safetensors"
    assert stdout.startswith(f"{out}: the best model so far")
    assert load_model(out).training_data == "random weights; local head: textures, CC0"
    index = tmp_path / "index"
    assert run("index", textures, "--out", index, "--model", out, "--device", "cpu")[0] == 0
    code, stdout, stderr = run("query", index, textures / "07.png", "--format", "json")
    assert code == 0, stderr
    assert json.loads(stdout)["queries"][0]["matches"][0]["image"] == "07.png"


def test_a_head_that_is_trained_further_keeps_its_dimension(run, textures, tmp_path):
    code, _, stderr = run("train", "local", textures, "--dimension", 32, "--out", tmp_path / "run")
    assert (code, "--dimension is for a new head, and lite-vlad has one" in stderr) == (2, True)


def test_a_local_head_needs_a_network(run, textures, tmp_path):
    code, _, stderr = run("train", "local", textures, "--model", "sift-vlad", "--out", tmp_path / "run")
    assert (code, "is not a network" in stderr) == (2, True)


def test_a_vlad_of_random_weights(run, textures, tmp_path):
    out = tmp_path / "fitted.safetensors"
    options = ("--dimension", 8, "--words", 4, "--aggregator", "vlad", "--name", "random", "--licence", "CC0-1.0")
    start = "new:timm-cnn:resnet10t@64"
    code, stdout, stderr = run("train", "vlad", start, textures, "--out", out, *options, "--device", "cpu")
    assert (code, stdout) == (0, f"{out}: random, fitted to 20 images\n"), stderr
    model = load_model(out)
    assert (model.licence, model.architecture.aggregator) == ("CC0-1.0", "vlad")


def test_an_interrupted_fit_says_how_to_go_on(run, exported, textures, tmp_path, monkeypatch):
    out = tmp_path / "fitted.safetensors"
    command = ("train", "vlad", exported.model, textures, "--out", out, "--dimension", 8, "--words", 4)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(network, "projection_of", interrupt)
        code, stdout, stderr = run(*command, "--device", "cpu")
    kept = f"{out}.partial holds what was finished"
    assert (code, stdout, stderr) == (1, "", f"interrupted: {kept}; run the command again to continue\n")
    assert not out.exists()
    assert run(*command, "--device", "cpu")[0] == 0
    assert not out.with_name("fitted.safetensors.partial").exists()


@pytest.mark.slow
def test_a_network_is_whitened(run, exported, photo_folder, tmp_path):
    out = tmp_path / "whitened.safetensors"
    options = ("--aggregator", "gem-whitened", "--pairs", 280, "--half", "--name", "pale", "--device", "cpu")
    code, stdout, stderr = run("train", "whitening", exported.model, photo_folder, "--out", out, *options)
    assert (code, stdout) == (0, f"{out}: pale, learned from 280 pairs\n"), stderr
    model, before = load_model(out), load_model(exported.model)
    assert (model.name, model.licence, model.architecture.aggregator) == ("pale", before.licence, "gem-whitened")


def test_mistakes_are_said_in_one_sentence(run, exported, photo_folder, tmp_path):
    out = tmp_path / "out.safetensors"
    for arguments, complaint in (
        (("whitening", tmp_path / "none.safetensors", photo_folder, "--out", out), "model file"),
        (("whitening", exported.model, photo_folder, "--out", tmp_path / "out.bin"), ".safetensors"),
        (("whitening", exported.model, photo_folder, "--out", out, "--pairs", 9), "9 pairs are too few to whiten"),
        (("whitening", exported.model, photo_folder, "--out", out, "--aggregator", "magic"), "magic"),
        (("vlad", "sift-vlad", photo_folder, "--out", out), "12 images are too few"),
        (("vlad", "sift-vlad", tmp_path / "none", "--out", out), "does not exist"),
        (("vlad", "sift-vlad", photo_folder, "--out", out, "--aggregator", "netvlad"), "no soft assignment"),
        (("vlad", exported.model, photo_folder, "--out", out), "12 images are too few"),
        (("vlad", exported.model, photo_folder, "--out", out, "--words", 1, "--dimension", 9999), "too few"),
        (("vlad", exported.folder, photo_folder, "--out", out), "is an export"),
        (("vlad", "new:cct_7_7x2_224", photo_folder, "--out", out), "names no input side"),
        (("vlad", "magic", photo_folder, "--out", out), "unknown model 'magic'"),
        (("vlad", exported.model, photo_folder, "--out", tmp_path / "out.bin"), ".safetensors"),
    ):
        code, stdout, stderr = run("train", *arguments)
        assert (code, stdout, stderr.count("\n"), stderr.startswith("error: ")) == (2, "", 1, True), stderr
        assert complaint in stderr
    assert not out.exists()
