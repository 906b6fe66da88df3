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
    "torchvision:NAME": [("torchvision:resnet18", 3, 32), ("torchvision:vgg16", None, 32)],
}
BACKBONES = [member for name in backbone_names() for member in _MEMBERS.get(name, [(name, 1, 32)])]
"""Name, number of blocks and input side of each."""


def sized_state(aggregator: str, cells: int) -> dict[str, torch.Tensor]:
    """Tensors whose shapes are the sizes of an aggregator that fits one number of cells only."""
    if aggregator != "mixvpr":
        return {}
    shapes = {"row_proj.weight": (2, cells), "channel_proj.weight": (8, 8), "mix.1.mix.0.weight": (cells,)}
    return {name: torch.empty(shape) for name, shape in shapes.items()}


def random_model(backbone: str, aggregator: str, blocks: int | None, side: int, *, seed: int = 0) -> ModelFile:
    """A model file of random weights."""
    torch.manual_seed(seed)
    built = build_backbone(backbone, blocks=blocks, input_size=Size(side, side))
    cells = built(torch.zeros(1, 3, side, side)).patches.shape[1]
    pooled = build_aggregator(aggregator, built.dimension, sized_state(aggregator, cells))
    parts = {"backbone": built.eval(), "aggregator": pooled}
    return ModelFile(
        "random",
        Architecture(backbone, aggregator, blocks),
        Preprocessing(side, side, "bilinear", True, (0.5,) * 3, (0.25,) * 3),
        "none",
        "none",
        {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()},
    )
