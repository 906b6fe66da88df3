"""Key layouts and shapes of torchvision's networks in published checkpoints."""

from collections.abc import Mapping

from vpr_dhe.models.importers.base import Shapes, State, affine, batch_norm, without_counters

RESNETS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks of each stage (He et al. 2016, table 1)."""
BASIC_RESNETS = ("resnet18", "resnet34")
_VGG_WIDTHS = {
    0: 64,
    2: 64,
    5: 128,
    7: 128,
    10: 256,
    12: 256,
    14: 256,
    **dict.fromkeys((17, 19, 21, 24, 26, 28), 512),
}
"""Widths of the convolutions of VGG-16, by their number in torchvision's `features`."""
SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Names of torchvision's layers, by their number in an `nn.Sequential` of the children of a ResNet."""


def resnet_of(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> str | None:
    """Name of the ResNet whose tensors have torchvision's names after a prefix; None if there is none."""

    def blocks(stage: int) -> int:
        start = f"{prefix}layer{stage}."
        return len({key[len(start) :].split(".")[0] for key in shapes if key.startswith(start)})

    found = tuple(blocks(stage) for stage in range(1, 5))
    basic = f"{prefix}layer1.0.conv3.weight" not in shapes
    for name, expected in RESNETS.items():
        # A network cut after layer3 has no block of layer4.
        if (name in BASIC_RESNETS) == basic and found in (expected, (*expected[:3], 0)):
            return name
    return None


def resnet_shapes(name: str, stages: int) -> Shapes:
    """Shapes of a ResNet that is cut after some stages; batch counters are left out."""
    expansion = 1 if name in BASIC_RESNETS else 4
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    inputs = 64
    for stage, blocks in enumerate(RESNETS[name][:stages]):
        width = 64 * 2**stage
        for index in range(blocks):
            block, outputs = f"layer{stage + 1}.{index}", expansion * width
            shapes |= _basic(block, inputs, width) if name in BASIC_RESNETS else _bottleneck(block, inputs, width)
            if index == 0 and inputs != outputs:
                shapes |= {f"{block}.downsample.0.weight": (outputs, inputs, 1, 1)}
                shapes |= batch_norm(f"{block}.downsample.1", outputs)
            inputs = outputs
    return shapes


def sequential_shapes(name: str, stages: int, prefix: str) -> Shapes:
    """Shapes of a ResNet in an `nn.Sequential` of its children, with the names of a checkpoint and batch counters."""
    numbers = {layer: number for number, layer in SEQUENTIAL.items()}
    shapes: Shapes = {}
    for key, shape in resnet_shapes(name, stages).items():
        layer, rest = key.split(".", 1)
        shapes[f"{prefix}{numbers[layer]}.{rest}"] = shape
        if rest.endswith("running_mean"):
            shapes[f"{prefix}{numbers[layer]}.{rest.replace('running_mean', 'num_batches_tracked')}"] = ()
    return shapes


def from_sequential(state: State, prefix: str) -> State:
    """Tensors of a ResNet in an `nn.Sequential`, renamed to `backbone.` and torchvision's names, without counters."""
    renamed = {}
    for key, value in without_counters(state).items():
        number, dot, rest = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and dot:
            renamed[f"backbone.{SEQUENTIAL.get(number, number)}.{rest}"] = value
    return renamed


def vgg16_shapes() -> Shapes:
    """Shapes of the convolutions of VGG-16."""
    shapes: Shapes = {}
    inputs = 3
    for number, width in _VGG_WIDTHS.items():
        shapes |= affine(str(number), width, inputs, 3, 3)
        inputs = width
    return shapes


def _basic(block: str, inputs: int, width: int) -> Shapes:
    return {
        f"{block}.conv1.weight": (width, inputs, 3, 3),
        **batch_norm(f"{block}.bn1", width),
        f"{block}.conv2.weight": (width, width, 3, 3),
        **batch_norm(f"{block}.bn2", width),
    }


def _bottleneck(block: str, inputs: int, width: int) -> Shapes:
    return {
        f"{block}.conv1.weight": (width, inputs, 1, 1),
        **batch_norm(f"{block}.bn1", width),
        f"{block}.conv2.weight": (width, width, 3, 3),
        **batch_norm(f"{block}.bn2", width),
        f"{block}.conv3.weight": (4 * width, width, 1, 1),
        **batch_norm(f"{block}.bn3", 4 * width),
    }
