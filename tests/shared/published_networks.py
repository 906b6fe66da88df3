"""Made-up checkpoints of networks that estimate homographies, in the layout that their authors publish."""

from itertools import pairwise

import torch
from torch import Tensor

State = dict[str, Tensor]


def ransac_flow(seed: int = 0) -> dict[str, State]:
    """File of the fine networks, as four state dictionaries, one of them empty."""
    random = torch.Generator().manual_seed(seed)
    features: State = {"conv1.weight": _weight(random, 64, 3, 3, 3), **_batch_norm(random, "bn1", 64)}
    features["maxpool.1.filt"] = _binomial(64)
    inputs = 64
    for layer, width in enumerate((64, 128, 256), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            features[f"{name}.conv1.weight"] = _weight(random, width, inputs, 3, 3)
            features[f"{name}.conv2.weight"] = _weight(random, width, width, 3, 3)
            features |= _batch_norm(random, f"{name}.bn1", width) | _batch_norm(random, f"{name}.bn2", width)
            if inputs != width:
                features[f"{name}.downsample.0.filt"] = _binomial(inputs)
                features[f"{name}.downsample.1.weight"] = _weight(random, width, inputs, 1, 1)
                features |= _batch_norm(random, f"{name}.downsample.2", width)
            inputs = width
    heads = {"netFlowCoarse": _head(random, 49), "netMatch": _head(random, 1)}
    return {"netFeatCoarse": features, "netCorr": {}, **heads}


def ihn(seed: int = 0, *, scales: int = 1) -> State:
    """File of a registration network."""
    random = torch.Generator().manual_seed(seed)
    state = _affine(random, "fnet1.conv1", 64, 3, 7, 7)
    inputs = 64
    for layer, width in (("layer2", 64), ("layer3", 96)):
        for block in range(2):
            name = f"fnet1.{layer}.{block}"
            state |= _affine(random, f"{name}.conv1", width, inputs, 3, 3)
            state |= _affine(random, f"{name}.conv2", width, width, 3, 3)
            state |= _affine(random, f"{name}.downsample.0", width, inputs, 1, 1)
            inputs = width
    state |= _affine(random, "fnet1.conv2", 256, 96, 1, 1) | _affine(random, "fnet1.conv3", 256, 64, 1, 1)
    for update, width, layers in (("update_block_4", 128, 4), ("update_block_2", 80, 5))[:scales]:
        for number in (*range(1, layers + 1), 10):
            name = f"{update}.cnn.layer{number}"
            state |= _affine(random, f"{name}.0", width, 164 if number == 1 else width, 3, 3)
            state |= _affine(random, f"{name}.1", width)
        state |= _affine(random, f"{update}.cnn.layer10.3", 2, width, 1, 1)
    return state


def _affine(random: torch.Generator, name: str, width: int, *fan_in: int) -> State:
    weight = _weight(random, width, *fan_in) if fan_in else _vector(random, width, 1.0)
    return {f"{name}.weight": weight, f"{name}.bias": _vector(random, width, 0.0)}


def _head(random: torch.Generator, outputs: int) -> State:
    state: State = {}
    for number, (inputs, width) in enumerate(pairwise((49, 512, 256, 128)), 1):
        state[f"conv{number}.weight"] = 2 * _weight(random, width, inputs, 3, 3)
        state |= _batch_norm(random, f"bn{number}", width)
    return state | {"conv4.weight": _weight(random, outputs, 128, 3, 3)}


def _weight(random: torch.Generator, *shape: int) -> Tensor:
    fan_in = torch.tensor(shape[1:]).prod()
    return torch.randn(shape, generator=random) / fan_in**0.5


def _vector(random: torch.Generator, size: int, mean: float) -> Tensor:
    return mean + 0.2 * (torch.rand(size, generator=random) - 0.5)


def _batch_norm(random: torch.Generator, name: str, width: int) -> State:
    means = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    state = {f"{name}.{part}": _vector(random, width, mean) for part, mean in means.items()}
    return state | {f"{name}.num_batches_tracked": torch.tensor(1000)}


def _binomial(width: int) -> Tensor:
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.outer(line, line).expand(width, 1, 3, 3).clone()
