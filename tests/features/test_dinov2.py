"""DINOv2 and the backbones of models on it: how each differs from timm's transformer."""

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.models.positional_embedding import resize_positional_embedding, resize_with_offset
from vpr_dhe.records import Grid, Size

SIZE = Size(42, 28)
GRID = Grid(2, 3)


@pytest.fixture(autouse=True)
def _shallow(monkeypatch, request):
    """Let timm make six blocks instead of twelve, which takes a second, except where they are counted."""
    if "large" not in request.node.name:
        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options | {"depth": 6}))


def build(name, blocks=2):
    """A backbone of random numbers."""
    torch.manual_seed(0)
    with torch.device("meta"):
        backbone = build_backbone(name, blocks=blocks, input_size=SIZE)
    backbone.to_empty(device="cpu").eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    for buffer in backbone.buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return backbone


def images(width=SIZE.width, height=SIZE.height, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def run(backbone, batch) -> DenseTokens:
    with torch.no_grad():
        return backbone(batch)


def bicubic(samples, scale, count):
    """Weights of samples in a row that is resized by a factor: Keys' cubic with a = -3/4, borders repeated."""
    weights = np.zeros((count, samples))
    for index in range(count):
        centre = (index + 0.5) / scale - 0.5
        first = int(np.floor(centre)) - 1
        for sample in range(first, first + 4):
            x = abs(centre - sample)
            near = 1.25 * x**3 - 2.25 * x**2 + 1
            far = -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
            weights[index, min(max(sample, 0), samples - 1)] += near if x <= 1 else far
    return weights


@pytest.mark.parametrize("grid", [Grid(23, 23), Grid(16, 36), Grid(37, 36), Grid(40, 51)])
def test_positions_are_resized_with_an_offset_and_without_antialiasing(grid):
    table = torch.randn(1, 37 * 37, 5, generator=torch.Generator().manual_seed(0))
    rows, columns = (bicubic(37, (side + 0.1) / 37, side) for side in grid)
    expected = np.einsum("ri,cj,ijd->rcd", rows, columns, table.view(37, 37, 5).double().numpy())
    found = resize_with_offset(table, Grid(37, 37), grid)
    np.testing.assert_allclose(found[0], expected.reshape(-1, 5), rtol=1e-3, atol=1e-4)
    assert not np.allclose(resize_positional_embedding(table, Grid(37, 37), grid)[0], found[0], atol=1e-2)


def test_positions_of_the_trained_size_are_not_resampled():
    table = torch.randn(1, 37 * 37, 5)
    assert torch.equal(resize_with_offset(table, Grid(37, 37), Grid(37, 37)), table)


@pytest.mark.parametrize(
    ("name", "offset"), [("dinov2:small", True), ("dinov2:small-reg4", False), ("imagevpr:small", True)]
)
def test_each_model_resizes_positions_by_its_own_rule(name, offset):
    """Models with registers as timm does, antialiased; but ImAge, which has registers too, as those without."""
    backbone = build(name)
    vit = backbone.vit
    table = vit.pos_embed if vit.reg_token is not None else vit.pos_embed[:, 1:]
    if offset:
        expected = resize_with_offset(table, Grid(37, 37), GRID)
    else:
        expected = resample_abs_pos_embed(table, list(GRID), (37, 37), num_prefix_tokens=0)
    embedded = vit.patch_embed(images()).flatten(1, 2) + expected
    with torch.no_grad():
        tokens, grid = backbone.embedded(images())
    assert grid == GRID
    torch.testing.assert_close(tokens[:, -6:], embedded)
    start = vit.cls_token if vit.reg_token is not None else vit.cls_token + vit.pos_embed[:, :1]
    torch.testing.assert_close(tokens[:, :1], start.expand(2, -1, -1))


def test_registers_are_dropped_and_all_else_is_as_in_timm():
    backbone = build("dinov2:small-reg4")
    with torch.no_grad():
        expected = backbone.vit.forward_features(images())
    found = run(backbone, images())
    torch.testing.assert_close(found.patches, expected[:, 5:])
    torch.testing.assert_close(found.class_token, expected[:, 0])


def test_boq_leaves_out_the_final_norm():
    normed, unnormed = build("dinov2:small"), build("dinov2-unnormed:small")
    assert normed.state_dict().keys() - unnormed.state_dict().keys() == {"vit.norm.weight", "vit.norm.bias"}
    unnormed.load_state_dict({key: value for key, value in normed.state_dict().items() if "vit.norm." not in key})
    patches = run(unnormed, images()).patches
    torch.testing.assert_close(normed.vit.norm(patches), run(normed, images()).patches)


@pytest.mark.parametrize(("side", "whole"), [(322, 322), (329, 336), (315, 308), (320, 322), (5, 14)])
def test_inputs_of_any_size_are_rounded_to_whole_patches(side, whole):
    """329 / 14 = 23.5 and 315 / 14 = 22.5: halves go to the even number, as Python's round has it."""
    backbone = build("dinov2:small", blocks=1)
    given = images(side, 28, count=1)
    rounded = functional.interpolate(given, (28, whole), mode="bilinear", align_corners=False, antialias=True)
    found = run(backbone, given)
    assert found.grid == Grid(2, whole // 14)
    torch.testing.assert_close(found.patches, run(backbone, rounded).patches)


def test_aggregation_tokens_come_first_in_the_last_four_blocks():
    backbone = build("imagevpr:small", blocks=6)
    with torch.no_grad():
        tokens, _ = backbone.embedded(images())
        for number, block in enumerate(backbone.vit.blocks):
            if number == 2:
                tokens = torch.cat([backbone.aggregation_tokens.expand(2, -1, -1), tokens], dim=1)
            tokens = block(tokens)
        tokens = backbone.vit.norm(tokens)
    found = run(backbone, images())
    torch.testing.assert_close(found.aggregation_tokens, tokens[:, :8])
    torch.testing.assert_close(found.class_token, tokens[:, 8])
    torch.testing.assert_close(found.patches, tokens[:, 13:])


def test_class_attention_is_that_of_the_last_block():
    backbone = build("fol:small")
    layer = backbone.vit.blocks[-1].attn
    with torch.no_grad():
        tokens = backbone.vit.blocks[0](backbone.embedded(images())[0])
        mixed = layer.qkv(backbone.vit.blocks[1].norm1(tokens))
        expected = torch.zeros(2, 7)
        for head in range(6):
            query, key = (mixed[:, :, start + 64 * head : start + 64 * (head + 1)] for start in (0, 384))
            expected += torch.softmax(query[:, 0, None] @ key.mT / 8, dim=-1)[:, 0]
    found = run(backbone, images())
    torch.testing.assert_close(found.class_attention, expected[:, 1:])
    torch.testing.assert_close(found.patches, run(build("dinov2:small"), images()).patches)


def test_edtformer_adds_the_frozen_tokens_to_its_stream():
    backbone = build("edtformer:small")
    with torch.no_grad():
        stream = tokens = backbone.embedded(images())[0]
        for block, adapter in zip(backbone.vit.blocks, backbone.adapters, strict=True):
            tokens = block(tokens)
            joined = stream + tokens
            hidden = joined @ adapter.D_fc1.weight.T + adapter.D_fc1.bias
            hidden = hidden * torch.distributions.Normal(0, 1).cdf(hidden)
            stream = joined + (hidden @ adapter.D_fc2.weight.T + adapter.D_fc2.bias) / 2
        expected = backbone.vit.norm(stream)
    found = run(backbone, images())
    torch.testing.assert_close(found.patches, expected[:, 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.class_token, expected[:, 0], rtol=1e-4, atol=1e-5)


def batch_norm(maps, norm):
    parts = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, var, weight, bias = (part[:, None, None] for part in parts)
    return ((maps - mean) / (var + 1e-3).sqrt() * weight + bias).clamp(min=0)


def convolved(maps, layer):
    padding = layer.conv.weight.shape[-1] // 2
    return batch_norm(functional.conv2d(maps, layer.conv.weight, layer.conv.bias, padding=padding), layer.bn)


def test_selavprpp_adapts_patches_beside_the_frozen_network():
    backbone = build("selavprpp:small")
    with torch.no_grad():
        tokens = backbone.embedded(images())[0]
        stream = tokens[:, 1:]
        for block, adapter in zip(backbone.vit.blocks, backbone.adapters, strict=True):
            tokens = block(tokens)
            hidden = functional.linear(stream + tokens[:, 1:], adapter.D_fc1.weight, adapter.D_fc1.bias).clamp(min=0)
            maps = hidden.reshape(2, *GRID, -1).permute(0, 3, 1, 2)
            branches = [convolved(maps, adapter.branch1)]
            branches += [
                convolved(convolved(maps, branch[0]), branch[1]) for branch in (adapter.branch2, adapter.branch3)
            ]
            joined = torch.cat(branches, dim=1).permute(0, 2, 3, 1).reshape(2, 6, -1) + hidden
            stream = stream + functional.linear(joined, adapter.D_fc2.weight, adapter.D_fc2.bias)
        expected = backbone.vit.norm(stream)
    torch.testing.assert_close(run(backbone, images()).patches, expected, rtol=1e-4, atol=1e-5)


def test_large_selavprpp_leaves_its_first_eight_blocks_as_they_are():
    with torch.device("meta"):
        assert len(build_backbone("selavprpp:large", blocks=None, input_size=SIZE).adapters) == 16
        assert len(build_backbone("selavprpp:base", blocks=None, input_size=SIZE).adapters) == 12


@pytest.mark.parametrize("name", ["dinov2:tiny", "dinov2:small-reg8", "fol:", "imagevpr:small-reg4"])
def test_unknown_sizes(name):
    with pytest.raises(ModelError, match=r"no DINOv2 .*; expected one of small, base, large, giant, or SIZE-reg4"):
        build_backbone(name, blocks=1, input_size=SIZE)


@pytest.mark.parametrize(
    "name", ["dinov2:small", "dinov2:small-reg4", "imagevpr:small", "selavprpp:small", "fol:small"]
)
def test_no_token_depends_on_other_images(name):
    backbone = build(name)
    torch.testing.assert_close(
        run(backbone, images()).patches[:1], run(backbone, images()[:1]).patches, rtol=1e-4, atol=1e-5
    )
