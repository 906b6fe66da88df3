"""States of checkpoints shaped like the published ones."""

import torch

from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone


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


def load_parts(model):
    backbone = build_backbone(
        model.architecture.backbone, blocks=model.architecture.blocks, input_size=model.preprocessing.size
    )
    aggregator = build_aggregator(model.architecture.aggregator, backbone.dimension)
    backbone.load_state_dict(model.part("backbone"), strict=True)
    aggregator.load_state_dict(model.part("aggregator"), strict=True)
    return backbone, aggregator
