"""Backbones from any vision transformer of timm: ViT, DeiT, DINOv2 and DINOv3 (with or without registers), EVA-02..."""

import difflib
import textwrap
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Grid, Preprocessing, Size

PREFIX = "timm:"

# timm is imported where it is used, because that takes seconds.


def build_timm_vit(name: str, *, blocks: int | None, input_size: Size) -> "TimmViT":
    """Build `timm:NAME` with random weights.

    Raises:
        ModelError: if timm has no such transformer, it has fewer blocks, or its patch size does not divide the input
            size.
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
    """Make a model file of a pretrained transformer from timm's hub or its cache.

    The global descriptor is the class token, or the mean of the patch tokens if there is none.

    Args:
        name: name in timm, with or without its tag, and without `timm:`.
        size: input size in pixels, rounded down to whole patches; that of the pretraining by default.

    Raises:
        ModelError: if timm has no such transformer, or its weights cannot be downloaded.
    """
    backbone = TimmViT(name, pretrained=True)
    config = backbone.vit.pretrained_cfg
    return ModelFile(
        name=f"{PREFIX}{name}",
        architecture=Architecture(f"{PREFIX}{name}", "mean" if backbone.vit.cls_token is None else "cls"),
        preprocessing=_preprocessing(backbone, size),
        licence=config.get("license") or f"see https://huggingface.co/{config.get('hf_hub_id') or 'timm'}",
        training_data=f"see timm's model card of {config.get('tag') or name}",
        tensors={f"backbone.{key}": value for key, value in backbone.state_dict().items()},
    )


class TimmViT(Backbone):
    """Transformer of timm without its head, optionally cut after `blocks` blocks; its final norm is still applied.

    `name` is the name in timm, with or without a tag (`vit_small_patch14_reg4_dinov2.lvd142m`). Input sides must be
    multiples of `patch_size`; timm resizes the positional embedding to the grid of the input (bicubic, antialiased).
    With `pretrained`, weights come from timm's hub or its cache; otherwise they are random.

    Raises:
        ModelError: if timm has no such transformer, it has fewer blocks, or its weights cannot be downloaded.
    """

    def __init__(self, name: str, *, blocks: int | None = None, pretrained: bool = False) -> None:
        super().__init__()
        # Typed Any, because timm's transformers share attributes but no base class that declares them.
        self.vit: Any = _create(name, pretrained)
        self.vit.reset_classifier(0, "")  # also drops attention pooling, which dense tokens bypass
        self.vit.blocks = self.vit.blocks[: _blocks_to_keep(name, blocks, len(self.vit.blocks))]
        self.dimension = self.vit.num_features

    @property
    def patch_size(self) -> Size:
        """Size of a patch in pixels."""
        height, width = self.vit.patch_embed.feat_ratio(as_scalar=False)
        return Size(width, height)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens, without class, distillation and register tokens, and the class token."""
        tokens = self.vit.forward_features(images)
        class_token = tokens[:, 0] if self.vit.cls_token is not None else None
        grid = Grid(*self.vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:])))
        return DenseTokens(tokens[:, self.vit.num_prefix_tokens :], grid, class_token)


def _create(name: str, pretrained: bool) -> Any:
    import timm

    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}{suggestions(name)}")
    try:
        # Every class with this option has a grid of patch tokens and a positional embedding that can be resized.
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
    """Error for a model that timm cannot make or download."""
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder="...")
    if not pretrained:
        return ModelError(f"timm cannot make {name} ({reason}){suggestions(name)}")
    return ModelError(
        f"weights of {name} could not be downloaded ({reason}); "
        "`sift-vlad` and local .safetensors model files work offline"
    )


def suggestions(name: str) -> str:
    """Suffix of a message about a name unknown to timm."""
    import timm

    close = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
    return f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models()"


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
