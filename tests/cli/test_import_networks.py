"""From the published file of a network to alignments with it, through the program itself."""

import json

import cv2
import numpy as np
import PIL.Image
import published_networks
import pytest
import torch

import vpr_dhe
from vpr_dhe.models.network_file import load_network


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A texture, and the same seen from slightly to the side."""
    folder = tmp_path_factory.mktemp("pair")
    coarse = np.random.default_rng(2).integers(0, 256, (24, 32, 3), np.uint8)
    texture = cv2.resize(coarse, (240, 180), interpolation=cv2.INTER_CUBIC)
    for name, shift in (("a", 0), ("b", 8)):
        PIL.Image.fromarray(texture[10:170, 10 + shift : 210 + shift]).save(folder / f"{name}.png")
    return folder / "a.png", folder / "b.png"


@pytest.mark.parametrize(
    ("make", "kind", "method"),
    [
        pytest.param(published_networks.ransac_flow, "ransac-flow", "ransac-flow", marks=pytest.mark.slow),
        (published_networks.ihn, "ihn", "iterative"),
    ],
)
def test_an_imported_network_aligns(run, pair, tmp_path, make, kind, method):
    checkpoint, weights = tmp_path / "weights.pth", tmp_path / "network.safetensors"
    torch.save(make(), checkpoint, _use_new_zipfile_serialization=kind != "ransac-flow")
    code, stdout, stderr = run("import-weights", checkpoint, "--out", weights)
    assert (code, stdout.startswith(f"{weights}: {method}, ")) == (0, True), stderr
    by_kind = tmp_path / "by-kind.safetensors"
    assert run("import-weights", checkpoint, "--kind", kind, "--out", by_kind)[0] == 0
    assert load_network(by_kind).tensors.keys() == load_network(weights).tensors.keys()
    code, stdout, stderr = run("align", *pair, "--method", method, "--weights", weights, "--format", "json")
    document = json.loads(stdout)
    assert document["method"] == method
    # Weights are made up: an estimate may be no view of the image, which is said.
    assert (code == 0) == (document["homography"] is not None), stderr
    found = vpr_dhe.align(*pair, method=method, weights=[weights])
    assert document["homography"] == (None if found.homography is None else pytest.approx(found.homography))


def test_how_to_get_a_network_is_said(run, pair):
    code, stdout, _ = run("models")
    assert (code, "ihn-mscoco" in stdout, "ransac-flow-megadepth" in stdout) == (0, True, True)
    code, stdout, _ = run("models", "ransac-flow-megadepth")
    assert code == 0
    assert "licence: MIT" in stdout
    assert "vpr-dhe import-weights MegaDepth_Theta1_Eta001_Grad0_0.807.pth --kind ransac-flow" in stdout
    code, _, stderr = run("align", *pair, "--method", "iterative")
    assert (code, "`vpr-dhe models ihn-mscoco` says how to get it" in stderr) == (2, True)
