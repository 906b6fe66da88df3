"""States of published checkpoints on DINOv2, as their authors name tensors: of a small, shallow DINOv2."""

from collections.abc import Callable

import torch
from checkpoints import constant
from torch import Tensor

WIDTH, BLOCKS = 384, 2
State = dict[str, Tensor]


def dinov2_state(prefix: str, registers: int = 0, *, mask: bool = True) -> State:
    state = {
        "cls_token": constant(1, 1, WIDTH, value=0.25),
        "pos_embed": constant(1, 1370, WIDTH, value=0.125),
        **_affine("patch_embed.proj", WIDTH, 3, 14, 14),
        **_affine("norm", WIDTH),
    }
    if mask:
        state["mask_token"] = constant(1, WIDTH)
    if registers:
        state["register_tokens"] = constant(1, registers, WIDTH, value=0.75)
    for block in (f"blocks.{index}" for index in range(BLOCKS)):
        state |= {
            **_affine(f"{block}.norm1", WIDTH),
            **_affine(f"{block}.attn.qkv", 3 * WIDTH, WIDTH),
            **_affine(f"{block}.attn.proj", WIDTH, WIDTH),
            f"{block}.ls1.gamma": constant(WIDTH),
            **_affine(f"{block}.norm2", WIDTH),
            **_affine(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH),
            **_affine(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH),
            f"{block}.ls2.gamma": constant(WIDTH),
        }
    return {f"{prefix}{key}": value for key, value in state.items()}


def megaloc() -> State:
    """The release of 2026."""
    return dinov2_state("backbone.", mask=False) | _transport("aggregator.agg.") | _megaloc_head()


def megaloc_of_2025() -> State:
    return dinov2_state("backbone.model.") | _transport("aggregator.agg.") | _megaloc_head()


def salad() -> State:
    return dinov2_state("backbone.model.") | _transport("aggregator.") | {"aggregator.dust_bin": torch.tensor(0.5)}


def boq() -> State:
    width, queries = 128, 5
    state = {
        **_affine("proj_c", width, WIDTH, 3, 3),
        **_affine("norm_input", width),
        **_affine("fc", 3, 2 * queries),
    }
    for block in ("boqs.0", "boqs.1"):
        state[f"{block}.queries"] = constant(1, queries, width)
        for attention in ("encoder.self_attn", "self_attn", "cross_attn"):
            state |= _attention(f"{block}.{attention}", width)
        for norm in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out"):
            state |= _affine(f"{block}.{norm}", width)
        state |= _affine(f"{block}.encoder.linear1", 512, width) | _affine(f"{block}.encoder.linear2", width, 512)
    return dinov2_state("backbone.dino.") | {f"aggregator.{key}": value for key, value in state.items()}


def imagevpr() -> State:
    return dinov2_state("backbone.", registers=4) | {"learnable_aggregation_tokens": constant(1, 8, WIDTH, value=0.375)}


def selavprpp() -> State:
    return dinov2_state("backbone.") | _selavprpp_branch("adapters", "aggregation", ("linear1", "linear2"), 48)


def selavprpp_rerank() -> State:
    """With the branch of binary codes."""
    return selavprpp() | _selavprpp_branch("adapters_hashing", "aggregation_hashing", ("linear3", "linear4"), 32)


def fol() -> State:
    local = {"upconv.weight": constant(WIDTH, 9, 3, 3), "upconv.bias": constant(9)}
    local |= {"upconv2.weight": constant(9, 4, 3, 3), "upconv2.bias": constant(4)}
    return dinov2_state("backbone.model.") | _transport("aggregator.") | local


def edtformer() -> State:
    state = dinov2_state("backbone.") | {"queries": constant(1, 6, WIDTH)}
    for index in range(BLOCKS):
        adapter = f"backbone.adapters.{index}"
        state |= _affine(f"{adapter}.D_fc1", 4, WIDTH) | _affine(f"{adapter}.D_fc2", WIDTH, 4)
    for layer in ("decoder.layers.0", "decoder.layers.1"):
        for part in ("self_attn", "multihead_attn"):
            state |= _attention(f"{layer}.{part}", WIDTH)
        state |= _affine(f"{layer}.norm1", WIDTH) | _affine(f"{layer}.norm2", WIDTH)
    return state | _affine("fc", WIDTH, WIDTH) | _affine("channel_proj", 16, WIDTH) | _affine("row_proj", 3, 6)


ON_DINOV2: dict[str, Callable[[], State]] = {
    "megaloc": megaloc,
    "salad": salad,
    "cliquemining": salad,
    "boq": boq,
    "imagevpr": imagevpr,
    "selavprpp": selavprpp,
    "fol": fol,
    "edtformer": edtformer,
}
"""Makers of a checkpoint by family."""


def _affine(name: str, rows: int, *columns: int) -> State:
    return {f"{name}.weight": constant(rows, *columns), f"{name}.bias": constant(rows)}


def _attention(name: str, width: int) -> State:
    packed = {f"{name}.in_proj_weight": constant(3 * width, width), f"{name}.in_proj_bias": constant(3 * width)}
    return packed | _affine(f"{name}.out_proj", width, width)


def _transport(prefix: str) -> State:
    """Layers of SALAD of 3 clusters of 4 numbers, and 5 numbers of the image."""
    return {
        **_affine(f"{prefix}token_features.0", 6, WIDTH),
        **_affine(f"{prefix}token_features.2", 5, 6),
        **_affine(f"{prefix}cluster_features.0", 6, WIDTH, 1, 1),
        **_affine(f"{prefix}cluster_features.3", 4, 6, 1, 1),
        **_affine(f"{prefix}score.0", 6, WIDTH, 1, 1),
        **_affine(f"{prefix}score.3", 3, 6, 1, 1),
    }


def _megaloc_head() -> State:
    return {"aggregator.agg.dust_bin": torch.tensor(0.5)} | _affine("aggregator.linear", 10, 17)


def _selavprpp_branch(adapters: str, pool: str, layers: tuple[str, str], out: int) -> State:
    state = {f"{pool}.1.p": torch.tensor([3.0])} | _affine(layers[0], WIDTH, WIDTH) | _affine(layers[1], out, WIDTH)
    convolutions = {"branch1": (96, 192, 1), "branch2.0": (12, 192, 1), "branch2.1": (48, 12, 3)}
    convolutions |= {"branch3.0": (12, 192, 1), "branch3.1": (48, 12, 5)}
    for adapter in (f"backbone.{adapters}.{index}" for index in range(BLOCKS)):
        state |= _affine(f"{adapter}.D_fc1", 192, WIDTH) | _affine(f"{adapter}.D_fc2", WIDTH, 192)
        for name, (rows, channels, side) in convolutions.items():
            state |= _affine(f"{adapter}.{name}.conv", rows, channels, side, side)
            state |= _affine(f"{adapter}.{name}.bn", rows)
            state |= {f"{adapter}.{name}.bn.running_{part}": constant(rows) for part in ("mean", "var")}
            state[f"{adapter}.{name}.bn.num_batches_tracked"] = torch.tensor(1000)
    return state
