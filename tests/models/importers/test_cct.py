"""Checkpoints of CCT, shaped like the published ones, imported."""

import pytest
import torch
from checkpoints import cct_state, constant, extractor_state, load_parts

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import shapes_of
from vpr_dhe.models.importers.cct import import_cct, recognises
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Size


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


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


def test_recognised():
    assert recognises(shapes_of(cct_state(constant)))
    assert not recognises(shapes_of(extractor_state(constant)))
