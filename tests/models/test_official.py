"""Checkpoints shaped like the published ones, made here, and imported."""

import numpy as np
import pytest
import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.models.model_file import load_model
from vpr_dhe.models.official import import_cct, import_dhe_vpr
from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.dhe import DheEstimator


def constant(*shape, value=0.5):
    """A tensor of one number, which takes no room on disk and, loaded, shares storage with itself."""
    return torch.tensor(value).expand(*shape)


def cct_state(make=torch.randn, *, blocks=2, width=384, hidden=1152, cells=576, prefix=""):
    state = {
        "tokenizer.conv_layers.0.0.weight": make(64, 3, 7, 7),
        "tokenizer.conv_layers.1.0.weight": make(width, 64, 7, 7),
        "classifier.positional_emb": make(1, cells, width),
        "classifier.attention_pool.weight": make(1, width),
        "classifier.attention_pool.bias": make(1),
        "classifier.norm.weight": make(width),
        "classifier.norm.bias": make(width),
    }
    for index in range(blocks):
        block = f"classifier.blocks.{index}."
        state |= {f"{block}{norm}.{part}": make(width) for norm in ("pre_norm", "norm1") for part in ("weight", "bias")}
        state |= {
            f"{block}self_attn.qkv.weight": make(3 * width, width),
            f"{block}self_attn.proj.weight": make(width, width),
            f"{block}self_attn.proj.bias": make(width),
            f"{block}linear1.weight": make(hidden, width),
            f"{block}linear1.bias": make(hidden),
            f"{block}linear2.weight": make(width, hidden),
            f"{block}linear2.bias": make(width),
        }
    return {prefix + key: value for key, value in state.items()}


def extractor_state(make=torch.randn, blocks=2):
    return cct_state(make, blocks=blocks, prefix="encoder.") | {"pool.1.p": torch.tensor([2.7])}


def head_state(make=torch.randn):
    state = {"pe": make(1, 576, 576), "linear.weight": make(16, 331776), "linear.bias": make(16)}
    for encoder in ("encoder", "encoder2"):
        for index in range(3):
            layer = f"{encoder}.layers.{index}."
            state |= {f"{layer}{norm}.{part}": make(576) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
            state |= {
                f"{layer}self_attn.in_proj_weight": make(1728, 576),
                f"{layer}self_attn.in_proj_bias": make(1728),
                f"{layer}self_attn.out_proj.weight": make(576, 576),
                f"{layer}self_attn.out_proj.bias": make(576),
                f"{layer}linear1.weight": make(2048, 576),
                f"{layer}linear1.bias": make(2048),
                f"{layer}linear2.weight": make(576, 2048),
                f"{layer}linear2.bias": make(576),
            }
    return state


@pytest.fixture
def saved(tmp_path):
    def save(name, content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def load_parts(model):
    backbone = build_backbone(
        model.architecture.backbone, blocks=model.architecture.blocks, input_size=model.preprocessing.size
    )
    aggregator = build_aggregator(model.architecture.aggregator, backbone.dimension)
    backbone.load_state_dict(model.part("backbone"), strict=True)
    aggregator.load_state_dict(model.part("aggregator"), strict=True)
    return backbone, aggregator


def test_finetuned_files_load_strictly(saved, tmp_path):
    extractor, head = extractor_state(), head_state()
    import_dhe_vpr(saved("fe.torch", extractor), saved("hr.torch", head)).save(tmp_path / "dhe.safetensors")
    model = load_model(tmp_path / "dhe.safetensors")
    backbone, aggregator = load_parts(model)
    estimator = DheEstimator.from_model(model)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, extractor[f"encoder.{key}"])
    for key, value in estimator.head.state_dict().items():
        assert torch.equal(value, head[key])
    assert aggregator.p.tolist() == extractor["pool.1.p"].tolist()


def test_facts_of_dhe_vpr(saved):
    model = import_dhe_vpr(saved("fe.torch", extractor_state(constant, 8)), saved("hr.torch", head_state(constant)))
    assert model.architecture.backbone == "cct_14_7x2_384"
    assert model.architecture.blocks == 8
    assert model.architecture.head == "dhe"
    assert not model.architecture.unit_norm
    assert model.preprocessing.size == Size(384, 384)
    assert model.preprocessing.interpolation == "bilinear"
    assert not model.preprocessing.antialias
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)
    assert model.preprocessing.std == (0.229, 0.224, 0.225)
    assert not any("attention_pool" in key for key in model.tensors)


def test_files_may_come_in_either_order(saved):
    paths = [saved("a", extractor_state(constant)), saved("b", head_state(constant))]
    there, back = import_dhe_vpr(*paths), import_dhe_vpr(*reversed(paths))
    assert there.tensors.keys() == back.tensors.keys()
    assert there.architecture == back.architecture


def test_initial_backbone_of_the_benchmark(saved, tmp_path):
    plain = cct_state(prefix="module.backbone.") | {"module.aggregation.1.p": torch.tensor([2.7])}
    # The benchmark saves its recalls, NumPy numbers, beside the weights.
    wrapped = {"epoch_num": 3, "model_state_dict": plain, "recalls": np.array([1.0, 2.0]), "best_r5": np.float64(2.0)}
    model = import_dhe_vpr(saved("CCT14.pth", wrapped))
    assert model.architecture.head is None
    model.save(tmp_path / "m.safetensors")
    backbone, aggregator = load_parts(load_model(tmp_path / "m.safetensors"))
    assert torch.equal(backbone.state_dict()["classifier.norm.bias"], plain["module.backbone.classifier.norm.bias"])
    assert aggregator.p.item() == pytest.approx(2.7)


def test_data_parallel_prefix(saved):
    extractor = {f"module.{key}": value for key, value in extractor_state(constant).items()}
    head = {f"module.{key}": value for key, value in head_state(constant).items()}
    model = import_dhe_vpr(saved("fe.torch", extractor), saved("hr.torch", head))
    assert {"backbone.classifier.norm.weight", "aggregator.p", "head.pe"} <= model.tensors.keys()


def test_half_precision_weights_become_single(saved):
    state = {key: value.half() for key, value in extractor_state(constant).items()}
    assert {value.dtype for value in import_dhe_vpr(saved("fe.torch", state)).tensors.values()} == {torch.float32}


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def test_missing_weights_are_named(saved):
    state = {key: value for key, value in head_state(constant).items() if "encoder2" not in key}
    with pytest.raises(ModelError, match=r"lacks head\.encoder2\.layers\.0.*, .*, .* and 33 more; check"):
        import_dhe_vpr(saved("fe", extractor_state(constant)), saved("hr", state))


def test_missing_block_is_named(saved):
    state = {key: value for key, value in extractor_state(constant, 3).items() if ".blocks.1." not in key}
    with pytest.raises(ModelError, match=r"lacks backbone\.classifier\.blocks\.1\..* and 8 more"):
        import_dhe_vpr(saved("fe", state))


def test_wrong_shapes_are_named(saved):
    state = extractor_state(constant) | {"encoder.classifier.positional_emb": constant(1, 196, 384)}
    with pytest.raises(ModelError, match=r"positional_emb of shape \(1, 196, 384\) instead of \(1, 576, 384\)"):
        import_dhe_vpr(saved("fe", state))


def test_unexpected_weights_are_named(saved):
    state = extractor_state(constant) | {"encoder.surplus": constant(1)}
    with pytest.raises(ModelError, match=r"unexpected backbone\.surplus"):
        import_dhe_vpr(saved("fe", state))


def test_too_many_blocks(saved):
    with pytest.raises(ModelError, match=r"unexpected backbone\.classifier\.blocks\.14"):
        import_dhe_vpr(saved("fe", extractor_state(constant, 15)))


def test_two_files_of_a_kind(saved):
    path = saved("fe", extractor_state(constant))
    with pytest.raises(ModelError, match="both files hold a DHE-VPR extractor"):
        import_dhe_vpr(path, path)


def test_head_alone(saved):
    with pytest.raises(ModelError, match="head only"):
        import_dhe_vpr(saved("hr", head_state(constant)))


@pytest.mark.parametrize(
    "content",
    [{}, {"fc.weight": 1}, [torch.zeros(2)], {"fc.weight": torch.zeros(2)}, torch.zeros(3), {3: torch.zeros(1)}],
)
def test_other_contents(saved, content):
    with pytest.raises(ModelError, match=r"state dictionary of tensors|neither a DHE-VPR extractor"):
        import_dhe_vpr(saved("other", content))


class Malicious:
    def __reduce__(self):
        return pytest.fail, ("code in a checkpoint was executed",)


def test_code_in_a_checkpoint_is_not_executed(saved):
    with pytest.raises(ModelError, match="not a readable PyTorch checkpoint"):
        import_dhe_vpr(saved("malicious", {"encoder": Malicious()}))


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", bytes(range(256)) * 4, b"PK\x03\x04broken", b"\x80\x02."]
)
def test_damaged_files(tmp_path, content):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable PyTorch checkpoint") as raised:
        import_cct(path)
    assert "\n" not in str(raised.value)


def test_missing_file(tmp_path):
    for convert in (import_dhe_vpr, import_cct):
        with pytest.raises(ModelError, match="does not exist"):
            convert(tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    ("name", "blocks", "facts"),
    [
        ("cct_7_7x2_224", 7, {"width": 256, "hidden": 512, "cells": 196}),
        ("cct_14_7x2_224", 14, {"cells": 196}),
        ("cct_14_7x2_384", 14, {"cells": 576}),
    ],
)
def test_cct_variants_are_recognised(saved, name, blocks, facts):
    width = facts.get("width", 384)
    classes = {"classifier.fc.weight": constant(1000, width), "classifier.fc.bias": constant(1000)}
    model = import_cct(saved("cct.pth", cct_state(constant, blocks=blocks, **facts) | classes))
    assert model.architecture.backbone == model.name == name
    assert model.architecture.blocks is None
    assert model.preprocessing.size == Size(int(name[-3:]), int(name[-3:]))
    assert model.architecture.unit_norm
    load_parts(model)


def test_cct_at_another_input_size(saved, tmp_path):
    state = cct_state(constant, cells=196)
    model = import_cct(saved("cct.pth", state), input_size=Size(320, 240), name="mine")
    model.save(tmp_path / "cct.safetensors")
    model = load_model(tmp_path / "cct.safetensors")
    assert model.name == "mine"
    assert model.architecture.blocks == 2
    assert model.tensors["backbone.classifier.positional_emb"].shape == (1, 300, 384)
    backbone, _ = load_parts(model)
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 240, 320)).grid == (15, 20)


def test_cct_cannot_have_cells_in_part(saved):
    with pytest.raises(ModelError, match="multiples of 16"):
        import_cct(saved("cct.pth", cct_state(constant)), input_size=Size(100, 100))


@pytest.mark.parametrize(
    "state",
    [
        cct_state(constant, width=128, hidden=128, cells=64),
        cct_state(constant, cells=577),
        extractor_state(constant),
        without(cct_state(constant), "classifier.positional_emb"),
    ],
)
def test_not_a_cct_that_is_known(saved, state):
    with pytest.raises(ModelError, match="not a CCT-7/7x2 or CCT-14/7x2 checkpoint"):
        import_cct(saved("cct.pth", state))
