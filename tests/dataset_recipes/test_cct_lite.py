"""The recipe of `cct-lite`: photos of held-out scenes apart, and a file of the backbone alone."""

import sys
from pathlib import Path

import torch
from random_models import random_model

from vpr_dhe.models.model_file import load_model

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import cct_lite


def test_held_out_scenes_are_for_validation(tmp_path, monkeypatch):
    names = {
        "facades": ["a.jpg"],
        "hdri_views": ["park__v0_h000.jpg", "venice__v0_h000.jpg"],
        "ie_tower_dense": [f"floor{floor}__hall_frame_{frame:06}.jpg" for floor in (7, 8) for frame in range(4)],
        "rtabmap_corridor": ["frame_1.jpg"],
    }
    monkeypatch.setattr(cct_lite, "_SHARES", {name: cct_lite._SHARES[name] for name in names})
    monkeypatch.setattr(cct_lite, "_TOWN_SEEDS", ())
    for folder, files in names.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in files:
            (tmp_path / "data" / folder / name).touch()
    assert cct_lite.main(["photos", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    linked = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg"))
    assert linked == [
        "training/facades/a.jpg",
        "training/hdri_views/park__v0_h000.jpg",
        "training/ie_tower_dense/floor8__hall_frame_000002.jpg",
        "validation/hdri_views/venice__v0_h000.jpg",
        "validation/ie_tower_dense/floor7__hall_frame_000000.jpg",
        "validation/ie_tower_dense/floor7__hall_frame_000003.jpg",
        "validation/rtabmap_corridor/frame_1.jpg",
    ]


def test_the_file_of_the_package_holds_the_backbone_in_half_precision(tmp_path, capsys):
    model = random_model("projected:16:cct_7_7x2_224", "vlad", 1, 32)
    model.save(tmp_path / "best.safetensors")
    out = tmp_path / "bundled.safetensors"
    assert cct_lite.main(["bundle", str(tmp_path / "best.safetensors"), "--out", str(out)]) == 0
    bundled = load_model(out)
    assert bundled.name == "cct-lite"
    assert set(bundled.tensors) == {f"backbone.{name}" for name in model.part("backbone")}
    assert {value.dtype for value in bundled.tensors.values()} == {torch.float16}
    assert cct_lite.main(["bundle", str(tmp_path / "none.safetensors"), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), "does not exist" in said) == (1, True)
