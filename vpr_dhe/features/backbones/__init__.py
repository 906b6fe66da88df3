"""Registry of backbones; a new one is one new file and one line here."""

from collections.abc import Callable

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import (
    cct,
    dinov2,
    edtformer,
    fol,
    imagevpr,
    projected,
    selavprpp,
    timm_cnn,
    timm_vit,
    torchvision_layout,
)
from vpr_dhe.features.base import Backbone
from vpr_dhe.records import Size

# A key that ends in a colon is the prefix of a family.
_BUILDERS: dict[str, Callable[..., Backbone]] = {
    **dict.fromkeys(cct.VARIANTS, cct.build_cct),
    timm_vit.PREFIX: timm_vit.build_timm_vit,
    timm_cnn.PREFIX: timm_cnn.build_timm_cnn,
    torchvision_layout.PREFIX: torchvision_layout.build_torchvision,
    dinov2.PREFIX: dinov2.build_dinov2,
    dinov2.UNNORMED_PREFIX: dinov2.build_unnormed,
    imagevpr.PREFIX: imagevpr.build_imagevpr,
    selavprpp.PREFIX: selavprpp.build_selavprpp,
    fol.PREFIX: fol.build_fol,
    edtformer.PREFIX: edtformer.build_edtformer,
    projected.PREFIX: projected.build_projected,
}


def backbone_names() -> list[str]:
    """List the names of backbones; NAME is a placeholder for a member of a family."""
    return [f"{name}NAME" if name.endswith(":") else name for name in _BUILDERS]


def build_backbone(name: str, *, blocks: int | None, input_size: Size) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: one of `backbone_names()`.
        blocks: number of blocks to keep, of a transformer, or stages, of a convolutional network; None keeps all.
        input_size: input size in pixels that the weights are meant for.

    Raises:
        ModelError: if the name is unknown, or does not support the number of blocks or the input size.
    """
    family, colon, _ = name.partition(":")
    builder = _BUILDERS.get(family + colon)
    if builder is None:
        raise ModelError(f"there is no backbone {name!r}; choose one of {', '.join(backbone_names())}")
    return builder(name, blocks=blocks, input_size=input_size)
