"""Any vision transformer of timm as a backbone: ViT, DeiT, DINOv2 and DINOv3 (with registers or without), EVA-02..."""

import difflib
import textwrap
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Grid, Preprocessing, Size

PREFIX = "timm:"

# timm takes seconds to import, so it is imported only where it is used.


def build_timm_vit(name: str, *, blocks: int | None, input_size: Size) -> "TimmViT":
    """Build `timm:NAME` with random weights.

    Raises:
        ModelError: if there is no such transformer in timm, it has not that many blocks, or its patch does not divide
            the input size.
    """
    backbone = TimmViT(name.removeprefix(PREFIX), blocks=blocks)
    patch = backbone.patch_size
    if input_size.width % patch.width or input_size.height % patch.height:
        raise ModelError(
            f"{name} has patches of {patch.width} x {patch.height} pixels, which do not divide an input of "
            f"{input_size.width} x {input_size.height}; choose multiples of them"
        )
    return backbone


def timm_model_file(name: str, *, size: Size | None = None) -> ModelFile:
    """Fetch the pretrained weights of a timm transformer from its hub, or its cache, with the facts about them.

    The global descriptor is the class token, or the mean of the patch tokens where there is none.

    Args:
        name: the name in timm, with its tag or without, and without `timm:`.
        size: the input size in pixels, rounded down to whole patches; that of the pretraining by default.

    Raises:
        ModelError: if there is no such transformer in timm, or its weights cannot be had.
    """
    backbone = TimmViT(name, pretrained=True)
    config = backbone.vit.pretrained_cfg
    return ModelFile(
        name=f"{PREFIX}{name}",
        architecture=Architecture(f"{PREFIX}{name}", "mean" if backbone.vit.cls_token is None else "cls"),
        preprocessing=_preprocessing(backbone, size),
        licence=config.get("license") or f"see https://huggingface.co/{config.get('hf_hub_id') or 'timm'}",
        training_data=f"as timm says of {config.get('tag') or name}",
        tensors={f"backbone.{key}": value for key, value in backbone.state_dict().items()},
    )


def preprocessing_for(name: str, size: Size | None = None) -> Preprocessing:
    """State how the pretrained weights of a timm transformer want their input; no weights are made or fetched.

    Args:
        name: the name in timm, with its tag or without.
        size: the input size in pixels, rounded down to whole patches; that of the pretraining by default.

    Raises:
        ModelError: if there is no such transformer in timm.
    """
    with torch.device("meta"):
        return _preprocessing(TimmViT(name), size)


class TimmViT(Backbone):
    """A timm transformer without its head, optionally cut after `blocks` blocks; its final norm still applies.

    `name` is that of timm, tag included where wanted (`vit_small_patch14_reg4_dinov2.lvd142m`). Input sides must be
    multiples of `patch_size`; timm resizes the positional embedding to the grid at hand (bicubic, antialiased). With
    `pretrained`, weights come from timm's hub or its cache; without, they are random, to be loaded from a model file.

    Raises:
        ModelError: if there is no such transformer in timm, it has not that many blocks, or its pretrained weights
            cannot be had.
    """

    def __init__(self, name: str, *, blocks: int | None = None, pretrained: bool = False) -> None:
        super().__init__()
        # Typed Any because timm's transformers share attributes, but no base class that declares them.
        self.vit: Any = _create(name, pretrained)
        self.vit.reset_classifier(0, "")  # also drops an attention pooling, which dense tokens bypass
        self.vit.blocks = self.vit.blocks[: _blocks_to_keep(name, blocks, len(self.vit.blocks))]
        self.dimension = self.vit.num_features

    @property
    def patch_size(self) -> Size:
        """Pixels per cell."""
        height, width = self.vit.patch_embed.feat_ratio(as_scalar=False)
        return Size(width, height)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens; class, distillation and register tokens are not among them."""
        tokens = self.vit.forward_features(images)
        class_token = tokens[:, 0] if self.vit.cls_token is not None else None
        grid = Grid(*self.vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:])))
        return DenseTokens(tokens[:, self.vit.num_prefix_tokens :], grid, class_token)


def _create(name: str, pretrained: bool) -> Any:
    import timm

    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}{suggestions(name)}")
    try:
        # Every class with this option has patch tokens in a grid and an absolute embedding that can be resized.
        model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        raise _not_a_transformer(name) from error
    except Exception as error:  # the hub's client raises the errors of whichever HTTP library it is built on
        raise unavailable(name, pretrained, error) from error
    if not all(hasattr(model, part) for part in ("num_prefix_tokens", "patch_embed", "blocks", "cls_token")):
        raise _not_a_transformer(name)
    return model


def _not_a_transformer(name: str) -> ModelError:
    return ModelError(
        f"{name} of timm has no grid of patch tokens for inputs of any size; "
        "choose a vision transformer such as vit_base_patch16_224 or vit_small_patch14_reg4_dinov2.lvd142m"
    )


def unavailable(name: str, pretrained: bool, error: Exception) -> ModelError:
    """What to raise where timm cannot make a model, or its weights cannot be had."""
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder="...")
    if not pretrained:
        return ModelError(f"timm cannot make {name} ({reason}){suggestions(name)}")
    return ModelError(
        f"weights of {name} could not be downloaded ({reason}); "
        "`sift-vlad` and local .safetensors model files work offline"
    )


def suggestions(name: str) -> str:
    """The end of a sentence about a name that timm does not know."""
    import timm

    close = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
    return f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models() for those it has"


def _blocks_to_keep(name: str, blocks: int | None, available: int) -> int:
    if blocks is not None and not 1 <= blocks <= available:
        raise ModelError(f"{name} cannot be cut to {blocks} blocks; choose 1 to {available}")
    return available if blocks is None else blocks


def _preprocessing(backbone: TimmViT, size: Size | None) -> Preprocessing:
    config, patch = backbone.vit.pretrained_cfg, backbone.patch_size
    _, height, width = config["input_size"]
    wanted = size or Size(width, height)
    return Preprocessing(
        width=_whole_patches(wanted.width, patch.width),
        height=_whole_patches(wanted.height, patch.height),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        antialias=True,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _whole_patches(side_px: int, patch_px: int) -> int:
    return max(side_px // patch_px, 1) * patch_px
