"""Checkpoints of models on DINOv2, shaped like the published ones, imported."""

import re

import numpy as np
import published
import pytest
import timm
import torch
from published import BLOCKS, ON_DINOV2, WIDTH
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.local_head import build_local_head
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.importers import FAMILIES, dinov2, import_checkpoints, load_importer
from vpr_dhe.models.importers.base import shapes_of
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2, Variant
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import RESIZE_8_BIT, RESIZE_FLOATS, Size

families = pytest.mark.parametrize("family", ON_DINOV2)


@pytest.fixture(autouse=True)
def _shallow(monkeypatch):
    """DINOv2 of two blocks instead of twelve, because tests need no more."""
    monkeypatch.setitem(dinov2.VARIANTS, WIDTH, Variant("small", BLOCKS))
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options | {"depth": BLOCKS}))


def imported(saved, family, state=None):
    return import_checkpoints(family, [saved(f"{family}.pth", ON_DINOV2[family]() if state is None else state)])


def require_fit(model) -> None:
    """The parts that the architecture names take these tensors, and no others."""
    with torch.device("meta"):
        parts = {"backbone": build_backbone(model.architecture.backbone, blocks=BLOCKS, input_size=Size(322, 322))}
        dimension = parts["backbone"].dimension
        name, state = model.architecture.aggregator, model.part("aggregator")
        parts["aggregator"] = build_aggregator(name, dimension, state)
        if model.architecture.local_head is not None:
            parts["local_head"] = build_local_head(model.architecture.local_head, dimension, model.part("local_head"))
    states = {f"{part}.{key}": value for part, built in parts.items() for key, value in built.state_dict().items()}
    assert shapes_of(model.tensors) == {
        key: shape for key, shape in shapes_of(states).items() if not key.endswith("num_batches_tracked")
    }


@families
def test_tensors_fit_the_architecture(saved, tmp_path, family):
    model = imported(saved, family)
    model.save(tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    require_fit(model)
    assert model.published
    assert model.architecture.unit_norm
    assert {value.dtype for value in model.tensors.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("family", "backbone", "aggregator", "licence"),
    [
        ("megaloc", "dinov2:small", "salad", "MIT (gmberton/MegaLoc"),
        ("salad", "dinov2:small", "salad", "GPL-3.0 (serizba/salad"),
        ("cliquemining", "dinov2:small", "salad", "GPL-3.0 (serizba/cliquemining"),
        ("boq", "dinov2-unnormed:small", "boq", "MIT (amaralibey/Bag-of-Queries"),
        ("imagevpr", "imagevpr:small", "aggregation-tokens", "MIT (Lu-Feng/ImAge"),
        ("selavprpp", "selavprpp:small", "selavprpp", "MIT (Lu-Feng/SelaVPRplusplus"),
        ("fol", "fol:small", "fol", "Apache-2.0 (chenshunpeng/FoL"),
        ("edtformer", "edtformer:small", "edtformer", "MIT (Tong-Jin01/EDTformer"),
    ],
)
def test_facts(saved, family, backbone, aggregator, licence):
    model = imported(saved, family)
    assert (model.architecture.backbone, model.architecture.aggregator) == (backbone, aggregator)
    assert model.licence.startswith(licence)
    assert "DINOv2" in model.training_data
    assert model.architecture.local_head == ("fol" if family == "fol" else None)


@pytest.mark.parametrize(
    ("family", "interpolation", "antialias", "order"),
    [
        ("megaloc", "bilinear", True, RESIZE_FLOATS),
        ("salad", "bilinear", True, RESIZE_8_BIT),
        ("cliquemining", "bilinear", True, RESIZE_8_BIT),
        ("boq", "bicubic", True, RESIZE_FLOATS),
        ("imagevpr", "bilinear", True, RESIZE_FLOATS),
        ("selavprpp", "bilinear", True, RESIZE_FLOATS),
        ("fol", "bilinear", False, RESIZE_FLOATS),
        ("edtformer", "bilinear", False, RESIZE_FLOATS),
    ],
)
def test_preprocessing_of_each_family(saved, family, interpolation, antialias, order):
    found = imported(saved, family).preprocessing
    assert found.size == Size(322, 322)
    assert (found.interpolation, found.antialias, found.order) == (interpolation, antialias, order)
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("family", ["megaloc", "fol"])
def test_images_may_be_normalised_before_they_are_resized(saved, family):
    """As these families do; the weights of an interpolation sum to one."""
    preprocessing = imported(saved, family).preprocessing
    image = np.random.default_rng(0).integers(0, 256, (90, 400, 3), np.uint8)
    mean, std = (np.array(part, np.float32) for part in (preprocessing.mean, preprocessing.std))
    normalised = torch.tensor((image / np.float32(255) - mean) / std).permute(2, 0, 1)[None]
    expected = interpolate(normalised, (322, 322), mode="bilinear", antialias=preprocessing.antialias)
    found = to_network_input([image], preprocessing, torch.device("cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@families
def test_each_is_recognised_by_its_family(family):
    shapes = shapes_of(ON_DINOV2[family]())
    alike = ["salad", "cliquemining"]
    expected = alike if family in alike else [family]
    assert [name for name in FAMILIES if load_importer(name).recognises(shapes)] == expected


@pytest.mark.parametrize(
    ("name", "wrapper", "family"),
    [
        ("weights.ckpt", None, "salad"),
        ("dino_salad.ckpt", None, "salad"),
        ("weights.ckpt", "state_dict", "cliquemining"),
        ("last_cliquemining.ckpt", "state_dict", "cliquemining"),
        ("salad_cliquemining.ckpt", "state_dict", "cliquemining"),
        ("weights.ckpt", "model_state_dict", None),
        ("dino_salad.ckpt", "state_dict", None),
        ("cliquemining.ckpt", None, None),
    ],
)
def test_salad_and_cliquemining_are_told_by_their_containers(saved, name, wrapper, family):
    """They have the same tensors; where container and name disagree, the user is asked."""
    state = published.salad()
    path = saved(name, state if wrapper is None else {wrapper: state})
    if family is None:
        with pytest.raises(ModelError, match="give --kind salad or --kind cliquemining"):
            import_checkpoints(None, [path])
    else:
        assert import_checkpoints(None, [path]).licence == import_checkpoints(family, [path]).licence


@families
def test_missing_and_left_over_tensors_are_named(saved, family):
    state = ON_DINOV2[family]()
    missing = next(key for key in state if key.endswith("blocks.1.attn.qkv.weight"))
    del state[missing]
    with pytest.raises(ModelError, match=rf"lacks {missing}; has unexpected backbone\.surplus; check"):
        imported(saved, family, state | {"backbone.surplus": torch.zeros(1)})


@families
def test_any_tensor_that_is_missing_is_told(saved, family):
    state = ON_DINOV2[family]()
    left = re.compile(r"\.blocks\.|mask_token|num_batches|\.1\.")  # others of a kind, and what is not used
    path = saved(f"{family}.pth", {})
    for key in [key for key in state if not left.search(key)]:
        torch.save({name: value for name, value in state.items() if name != key}, path)
        with pytest.raises(ModelError, match=r"lacks|has|holds"):
            import_checkpoints(family, [path])


@families
def test_wrong_shapes_are_named(saved, family):
    state = ON_DINOV2[family]()
    table = next(key for key in state if key.endswith("pos_embed"))
    with pytest.raises(ModelError, match=r"pos_embed of shape \(1, 257, 384\) instead of \(1, 1370, 384\)"):
        imported(saved, family, state | {table: torch.zeros(1, 257, WIDTH)})


@families
def test_other_widths_of_dinov2_are_refused(saved, family):
    state = {key: value for key, value in ON_DINOV2[family]().items() if "cls_token" not in key}
    with pytest.raises(
        ModelError, match=r"holds no DINOv2: expected .* \(1, 1, 384 or 768 or 1024 or 1536\), found none"
    ):
        imported(saved, family, state)


@families
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict"])
def test_containers(saved, family, wrapper):
    """Lightning's, and the benchmark's with recalls of NumPy and the prefix of DataParallel."""
    state = ON_DINOV2[family]()
    if wrapper == "state_dict":
        wrapped = {"epoch": 3, "state_dict": state, "hyper_parameters": {"agg_config": {"num_clusters": 64}}}
    else:
        prefixed = {f"module.{key}": value for key, value in state.items()}
        wrapped = {"model_state_dict": prefixed, "recalls": np.array([90.5]), "best_r5": np.float64(95.25)}
    assert imported(saved, family, wrapped).tensors.keys() == imported(saved, family).tensors.keys()


def test_both_releases_of_megaloc(saved, tmp_path):
    save_file({key: value.clone() for key, value in published.megaloc().items()}, tmp_path / "model.safetensors")
    new = import_checkpoints("megaloc", [tmp_path / "model.safetensors"])
    old = imported(saved, "megaloc", published.megaloc_of_2025())
    assert new.extractor_fingerprint == old.extractor_fingerprint
    assert new.tensors["aggregator.linear.weight"].shape == (10, 17)


def test_tensors_of_the_pretraining_are_dropped(saved):
    assert not any("mask_token" in key for key in imported(saved, "salad").tensors)


def test_boq_has_no_final_norm(saved):
    assert not any(key.startswith("backbone.vit.norm.") for key in imported(saved, "boq").tensors)


def test_registers_and_the_position_of_the_class_token(saved):
    """timm keeps the class token with its position where there are registers, and the table without it."""
    tensors = imported(saved, "imagevpr").tensors
    assert tensors["backbone.vit.reg_token"].unique().tolist() == [0.75]
    assert tensors["backbone.vit.cls_token"].unique().tolist() == [0.25 + 0.125]
    assert tensors["backbone.vit.pos_embed"].shape == (1, 1369, WIDTH)
    assert tensors["backbone.aggregation_tokens"].unique().tolist() == [0.375]
    without = imported(saved, "salad").tensors
    assert without["backbone.vit.cls_token"].unique().tolist() == [0.25]
    assert without["backbone.vit.pos_embed"].shape == (1, 1370, WIDTH)


def test_salad_on_dinov2_with_registers(saved):
    state = published.salad() | published.dinov2_state("backbone.model.", registers=4)
    model = imported(saved, "salad", state)
    assert model.architecture.backbone == "dinov2:small-reg4"
    require_fit(model)


def test_the_branch_of_binary_codes_is_imported_and_must_be_complete(saved):
    state = published.selavprpp_rerank()
    model = imported(saved, "selavprpp", state)
    require_fit(model)
    without = imported(saved, "selavprpp")
    assert (model.architecture.backbone, without.architecture.backbone) == ("selavprpp:small-codes", "selavprpp:small")
    assert without.tensors.keys() < model.tensors.keys()
    del state["linear4.weight"]
    with pytest.raises(ModelError, match=r"lacks linear4\.weight"):
        imported(saved, "selavprpp", state)


def test_giant_models_have_gated_layers():
    found = PublishedDinoV2("", 1536, 0)
    shapes = found.shapes({})
    assert shapes["blocks.39.mlp.w12.weight"] == (8192, 1536)
    mapped = found.tensors({"blocks.0.mlp.w12.weight": torch.zeros(1), "blocks.0.mlp.w3.bias": torch.zeros(1)})
    assert set(mapped) == {"backbone.vit.blocks.0.mlp.fc1.weight", "backbone.vit.blocks.0.mlp.fc2.bias"}
    with torch.device("meta"):
        state = build_backbone("dinov2:giant", blocks=1, input_size=Size(28, 28)).state_dict()
    assert shapes_of(state)["vit.blocks.0.mlp.fc1.weight"] == (8192, 1536)
    assert shapes_of(state)["vit.blocks.0.mlp.fc2.weight"] == shapes["blocks.0.mlp.w3.weight"]


def test_a_head_that_is_no_boq(saved):
    with pytest.raises(ModelError, match="holds no BoQ"):
        imported(saved, "boq", published.dinov2_state("backbone.dino."))
