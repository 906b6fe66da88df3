"""`train sift-vlad` and `train whitening`: the fits that offline models are made by, through their commands."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.models.model_file import load_model
from vpr_dhe.training import sift_vlad


@pytest.mark.slow
def test_sift_vlad_is_fitted_to_a_folder(run, tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    for number in range(20):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((160, 120), PIL.Image.Resampling.BICUBIC).save(tmp_path / f"{number:02}.png")
    fit, small = sift_vlad.fit, {"dimension": 16, "words": 8, "reduced_dimension": 24, "views_per_image": 2}
    monkeypatch.setattr(
        sift_vlad,
        "fit",
        lambda paths, settings, *rest, **options: fit(paths, replace(settings, **small), *rest, **options),
    )
    out = tmp_path / "fitted.safetensors"
    code, stdout, stderr = run("train", "sift-vlad", tmp_path, "--out", out, "--training-data", "textures, CC0")
    assert (code, stdout) == (0, f"{out}: sift-vlad, fitted to 20 images\n"), stderr
    model = load_model(out)
    assert (model.training_data, model.tensors["aggregator.projection"].shape[0]) == ("textures, CC0", 16)


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
        (("sift-vlad", photo_folder, "--out", out, "--training-data", "nothing"), "needs more images"),
        (("sift-vlad", tmp_path / "none", "--out", out, "--training-data", "nothing"), "does not exist"),
    ):
        code, stdout, stderr = run("train", *arguments)
        assert (code, stdout, stderr.count("\n"), stderr.startswith("error: ")) == (2, "", 1, True), stderr
        assert complaint in stderr
    assert not out.exists()
