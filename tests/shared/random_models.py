"""Model files of random weights, of every registered backbone and aggregator."""

from itertools import cycle
from typing import TypeAlias

import torch
from small_aggregators import small_aggregator

from vpr_dhe.features.aggregators import aggregator_names
from vpr_dhe.features.backbones import backbone_names, build_backbone
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Preprocessing, Size

# Of each family small members whose layers are unlike those of the others.
_MEMBERS = {
    "timm:NAME": [
        ("timm:vit_tiny_patch16_224", 1, 32),
        ("timm:vit_small_patch14_reg4_dinov2", 1, 28),
        ("timm:vit_small_patch16_dinov3", 1, 32),
    ],
    "timm-cnn:NAME": [("timm-cnn:resnet10t", None, 32), ("timm-cnn:mobilenetv3_small_050", None, 32)],
    "torchvision:NAME": [("torchvision:resnet18", 3, 32), ("torchvision:vgg16", None, 32)],
    "dinov2:NAME": [("dinov2:small", 1, 28), ("dinov2:small-reg4", 1, 28)],
    "dinov2-unnormed:NAME": [("dinov2-unnormed:small", 1, 28)],
    "imagevpr:NAME": [("imagevpr:small", 1, 28)],
    "selavprpp:NAME": [("selavprpp:small", 1, 28)],
    "fol:NAME": [("fol:small", 1, 28)],
    "edtformer:NAME": [("edtformer:small", 1, 28)],
    "projected:NAME": [("projected:16:cct_7_7x2_224", 1, 32)],
}
Member: TypeAlias = tuple[str, int | None, int]

BACKBONES: list[Member] = [member for name in backbone_names() for member in _MEMBERS.get(name, [(name, 1, 32)])]
"""Name, number of blocks and input side of each."""

# Of aggregators that need what few backbones give.
_BACKBONE_FOR = {"aggregation-tokens": ("imagevpr:small", 1, 28), "fol": ("fol:small", 1, 28)}
_WITH_CLASS_TOKEN = [member for member in BACKBONES if member[0].startswith(("timm:", "dinov2", "selavprpp:"))]


def networks() -> list[tuple[str, Member]]:
    """Aggregators with backbones, such that each aggregator and each backbone is in at least one network."""
    turns = cycle(_WITH_CLASS_TOKEN)
    found = [(name, _BACKBONE_FOR.get(name) or next(turns)) for name in aggregator_names()]
    used = {member for _, member in found}
    return [*found, *(("gem", member) for member in BACKBONES if member not in used)]


def random_model(backbone: str, aggregator: str, blocks: int | None, side: int, *, seed: int = 0) -> ModelFile:
    """A model file of random weights."""
    torch.manual_seed(seed)
    built = build_backbone(backbone, blocks=blocks, input_size=Size(side, side)).eval()
    cells = built(torch.zeros(1, 3, side, side)).patches.shape[1]
    parts = {"backbone": built, "aggregator": small_aggregator(aggregator, built.dimension, cells)}
    return ModelFile(
        "random",
        Architecture(backbone, aggregator, blocks),
        Preprocessing(side, side, "bilinear", True, (0.5,) * 3, (0.25,) * 3),
        "none",
        "none",
        {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()},
    )
