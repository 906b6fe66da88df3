"""Model files of random weights, of every registered backbone."""

import torch

from vpr_dhe.features.aggregators import build_aggregator
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
}
BACKBONES = [member for name in backbone_names() for member in _MEMBERS.get(name, [(name, 1, 32)])]
"""Name, number of blocks and input side of each."""


def random_model(backbone: str, aggregator: str, blocks: int | None, side: int, *, seed: int = 0) -> ModelFile:
    """A model file of random weights."""
    torch.manual_seed(seed)
    built = build_backbone(backbone, blocks=blocks, input_size=Size(side, side))
    parts = {"backbone": built, "aggregator": build_aggregator(aggregator, built.dimension)}
    return ModelFile(
        "random",
        Architecture(backbone, aggregator, blocks),
        Preprocessing(side, side, "bilinear", True, (0.5,) * 3, (0.25,) * 3),
        "none",
        "none",
        {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()},
    )
