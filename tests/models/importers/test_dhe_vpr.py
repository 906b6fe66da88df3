"""Checkpoints of DHE-VPR, shaped like the published ones, imported."""

import numpy as np
import pytest
import torch
from checkpoints import cct_state, constant, extractor_state, head_state, load_parts
from safetensors.torch import save_file

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import shapes_of
from vpr_dhe.models.importers.dhe_vpr import import_dhe_vpr, recognises
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.dhe import DheEstimator


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


def test_recognised():
    assert recognises(shapes_of(extractor_state(constant)))
    assert recognises(shapes_of(head_state(constant)))
    assert not recognises(shapes_of(cct_state(constant)))


def test_safetensors(tmp_path):
    state = extractor_state()
    save_file(state, tmp_path / "fe.safetensors")
    model = import_dhe_vpr(tmp_path / "fe.safetensors")
    assert torch.equal(model.tensors["aggregator.p"], state["pool.1.p"])
