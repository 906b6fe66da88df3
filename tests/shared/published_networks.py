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
