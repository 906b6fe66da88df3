"""Small checkpoints of made-up weights, in the layout and container of each published family."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import published
import pytest
import timm
import torch
import torchvision
from checkpoints import cct_state, constant, extractor_state, head_state
from published import ON_DINOV2, State
from safetensors.torch import save_file
from torch import Tensor

from vpr_dhe.models.importers import FAMILIES, dinov2
from vpr_dhe.models.importers.dinov2 import Variant


def write_checkpoints(family: str, folder: Path) -> list[Path]:
    """Write the files of a model; call it and import them inside `shallow_dinov2`.

    A new family gets a line in `published.ON_DINOV2` or in `_OTHERS`, of states whose values do not matter.
    """
    states = {**{name: {"weights.pth": state} for name, state in ON_DINOV2.items()}, **_OTHERS}
    assert states.keys() == FAMILIES.keys() | VARIANTS.keys(), (
        "give each family a small checkpoint, in published.py or here"
    )
    paths = []
    for name, state in states[family].items():
        made, path = made_up(state()), folder / name
        if path.suffix == ".safetensors":
            save_file(made, path)
        else:
            torch.save({_WRAPPERS[family]: made} if family in _WRAPPERS else made, path)
        paths.append(path)
    return paths


@contextmanager
def shallow_dinov2() -> Iterator[None]:
    """Take DINOv2 of two blocks instead of twelve, because tests need no more."""
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(dinov2.VARIANTS, published.WIDTH, Variant("small", published.BLOCKS))
        depth = {"depth": published.BLOCKS}
        patched.setattr(timm, "create_model", lambda name, **options: create(name, **options | depth))
        yield


def made_up(state: State) -> State:
    """State of the same shapes with plausible values, which keep the outputs of a network apart."""
    random = torch.Generator().manual_seed(1)
    return {name: _filled(name.rsplit(".", 1)[-1], value, random) for name, value in sorted(state.items())}


def _filled(name: str, like: Tensor, random: torch.Generator) -> Tensor:
    if not like.is_floating_point():  # counters of batches
        return torch.full(like.shape, 1000)
    noise = 2 * torch.rand(like.shape, generator=random) - 1
    if like.ndim == 4 and like.shape[1] % 2 == 0:
        # Weights that sum to zero keep a deep network from answering the same to every image.
        noise[:, 1::2] = -noise[:, ::2]
    if name in _CENTRES:
        centre, width = _CENTRES[name]
        return centre + width * noise
    if name.endswith("bias"):
        return 0.1 * noise
    if like.ndim == 1:  # weight of a norm
        return 1 + 0.25 * noise
    return noise * math.sqrt(3 / max(1, math.prod(like.shape[1:])))


# Centre and half the width of the values, by the last part of a tensor's name.
_CENTRES = {
    "running_var": (1, 0.5),
    "running_mean": (0, 0.2),
    "gamma": (0.5, 0.25),
    "p": (3, 0.5),
    "dust_bin": (1, 0.5),
    "pos_embed": (0, 0.5),
    **dict.fromkeys(("cls_token", "register_tokens", "queries", "learnable_aggregation_tokens"), (0, 1.7)),
}
# Further kinds of checkpoints of a family.
VARIANTS = {"selavprpp-codes": "selavprpp"}
# Entries that hold the tensors in files that are not bare state dictionaries.
_WRAPPERS = {
    "cliquemining": "state_dict",
    "moco": "model",
    **dict.fromkeys(("imagevpr", "selavprpp", "selavprpp-codes", "fol", "edtformer"), "model_state_dict"),
}


def _gem_linear() -> State:
    cut = torch.nn.Sequential(*torchvision.models.resnet18(weights=None).children())[:-2]
    state = {f"backbone.{name}": value for name, value in cut.state_dict().items()}
    linear = {"aggregation.3.weight": constant(32, 512), "aggregation.3.bias": constant(32)}
    return state | linear | {"aggregation.1.p": constant(1)}


def _mixvpr() -> State:
    with torch.device("meta"):
        whole = torchvision.models.resnet50(weights=None)
    state = {f"backbone.model.{name}": value for name, value in whole.state_dict().items()}
    state = {name: value for name, value in state.items() if not name.startswith(("backbone.model.layer4", _HEAD))}
    for name, shape in {"channel_proj": (64, 1024), "row_proj": (2, 400)}.items():
        state |= {f"aggregator.{name}.weight": constant(*shape), f"aggregator.{name}.bias": constant(shape[0])}
    for layer in (f"aggregator.mix.{index}.mix" for index in range(2)):
        state |= {f"{layer}.0.{part}": constant(400) for part in ("weight", "bias")}
        for number in (1, 3):
            state |= {f"{layer}.{number}.weight": constant(400, 400), f"{layer}.{number}.bias": constant(400)}
    return state


def _moco() -> State:
    with torch.device("meta"):
        whole = torchvision.models.resnet50(weights=None, num_classes=128)
    return {f"module.{name}": value for name, value in whole.state_dict().items()}


_HEAD = "backbone.model.fc"
# Makers of the states of each file.
_OTHERS: dict[str, dict[str, Callable[[], State]]] = {
    "dhe-vpr": {"extractor.torch": lambda: extractor_state(constant), "head.torch": lambda: head_state(constant)},
    "cct": {"weights.pth": lambda: cct_state(constant)},
    "cosplace": {"ResNet18_32_cosplace.pth": _gem_linear},
    "eigenplaces": {"ResNet18_32_eigenplaces.pth": _gem_linear},
    "mixvpr": {"weights.ckpt": _mixvpr},
    "megaloc": {"model.safetensors": published.megaloc},
    "moco": {"resnet50_moco.pth": _moco},
    "selavprpp-codes": {"weights.pth": published.selavprpp_rerank},
}
