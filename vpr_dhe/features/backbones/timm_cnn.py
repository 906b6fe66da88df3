"""Backbones from any convolutional network of timm, cut at stride 16.

In ResNets that is after `layer3`, as in RANSAC-Flow (Shen et al., ECCV 2020). EfficientNets and their relatives have
several stages at stride 16 and can be cut after each of them.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones.timm_vit import suggestions, unavailable
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Grid, Preprocessing, Size

PREFIX = "timm-cnn:"
STRIDE_PX = 16


def build_timm_cnn(name: str, *, blocks: int | None, input_size: Size) -> Backbone:
    """Build `timm-cnn:NAME` with random weights, cut after `blocks` stages if given.

    Raises:
        ModelError: if timm has no such network, it has no map at stride 16, it has no stages or the cut is at another
            stride, or the input's sides are not multiples of 16.
    """
    if input_size.width % STRIDE_PX or input_size.height % STRIDE_PX:
        raise ModelError(
            f"{name} has cells of {STRIDE_PX} pixels, which do not divide an input of {input_size.width} x "
            f"{input_size.height}; choose multiples of them"
        )
    network = name.removeprefix(PREFIX)
    return TimmCnn(network) if blocks is None else TruncatedTimmCnn(network, blocks)


def timm_cnn_model_file(name: str, *, size: Size | None = None) -> ModelFile:
    """Make a model file of a pretrained convolutional network, from timm's hub or its cache, with GeM over the cells.

    Args:
        name: name in timm, with or without its tag, and without `timm-cnn:`.
        size: input size in pixels, rounded down to multiples of 16; that of the pretraining by default.

    Raises:
        ModelError: if timm has no such network, or its weights cannot be downloaded.
    """
    backbone = TimmCnn(name, pretrained=True)
    config = backbone.pretrained_config
    _, height, width = config["input_size"]
    wanted = size or Size(width, height)
    tensors = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    return ModelFile(
        name=f"{PREFIX}{name}",
        architecture=Architecture(f"{PREFIX}{name}", "gem"),
        preprocessing=Preprocessing(
            width=max(1, wanted.width // STRIDE_PX) * STRIDE_PX,
            height=max(1, wanted.height // STRIDE_PX) * STRIDE_PX,
            interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
            antialias=True,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        ),
        licence=config.get("license") or f"see https://huggingface.co/{config.get('hf_hub_id') or 'timm'}",
        training_data=f"see timm's model card of {config.get('tag') or name}",
        tensors={**tensors, "aggregator.p": torch.tensor([3.0])},
    )


class TimmCnn(Backbone):
    """Convolutional network of timm, cut at stride 16.

    With `pretrained`, weights come from timm's hub or its cache; otherwise they are random.

    Raises:
        ModelError: if timm has no such network, it has no such map, or its weights cannot be downloaded.
    """

    convolutional = True

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__()
        import timm

        _require_known(name)
        try:
            with torch.device("meta"):
                levels: Any = timm.create_model(name, features_only=True)
            reductions = levels.feature_info.reduction()
        except (RuntimeError, AttributeError) as error:
            raise _without_map(name) from error
        # Transformers, whose maps all have one size, are `timm:NAME`.
        if reductions.count(STRIDE_PX) != 1:
            raise _without_map(name)
        level = reductions.index(STRIDE_PX)
        try:
            # Typed Any, because timm's feature extractors declare no attributes.
            self.network: Any = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(level,))
        except Exception as error:  # the hub's client raises the errors of whichever HTTP library it is built on
            raise unavailable(name, pretrained, error) from error
        self.dimension = self.network.feature_info.channels()[0]
        self.pretrained_config: dict[str, Any] = timm.get_pretrained_cfg(name).to_dict()  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per cell of the map; there is no class token."""
        (maps,) = self.network(images)
        return DenseTokens(maps.flatten(2).mT, Grid(*maps.shape[-2:]))


class TruncatedTimmCnn(Backbone):
    """EfficientNet of timm or a relative (MNASNet, MobileNetV2 to V4), cut after `blocks` stages, with random weights.

    Unlike `TimmCnn`, which keeps the weights of the whole network, it has no layers beyond the cut. Its weights have
    the names of timm's classifier.

    Raises:
        ModelError: if timm has no such network, it has no stages, or the cut is at another stride than 16.
    """

    convolutional = True

    def __init__(self, name: str, blocks: int) -> None:
        super().__init__()
        import timm

        _require_known(name)
        whole: Any = timm.create_model(name)
        if not all(hasattr(whole, part) for part in ("conv_stem", "bn1", "blocks")):
            raise ModelError(f"{name} of timm has no stages to be cut after; leave out the number of blocks")
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks[:blocks]
        self.dimension, reduction = self._measured()
        if reduction != STRIDE_PX or not 1 <= blocks <= len(whole.blocks):
            raise ModelError(
                f"{name} has no map at a sixteenth of its input after {blocks} of its {len(whole.blocks)} blocks; "
                "choose another number of blocks"
            )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per cell of the map; there is no class token."""
        maps = self.blocks(self.bn1(self.conv_stem(images)))
        return DenseTokens(maps.flatten(2).mT, Grid(*maps.shape[-2:]))

    @torch.no_grad()
    def _measured(self) -> tuple[int, int]:
        """Determine the width of tokens and the pixels per cell from a black image."""
        side_px = 4 * STRIDE_PX
        tokens = self.eval()(torch.zeros(1, 3, side_px, side_px))
        self.train()
        return tokens.patches.shape[2], side_px // tokens.grid.columns


def _require_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}{suggestions(name)}")


def _without_map(name: str) -> ModelError:
    return ModelError(
        f"{name} of timm has no single map at a sixteenth of its input; choose a convolutional network such as resnet50"
    )
