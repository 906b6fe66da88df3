"""Names and shapes of the tensors of DINOv2 in published checkpoints, as in the original code.

Source: https://github.com/facebookresearch/dinov2.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import Shapes, State, affine, imagenet_preprocessing
from vpr_dhe.records import Preprocessing, Size

INPUT_SIZE = Size(322, 322)
"""Input size of most models on DINOv2."""

_PATCH_PX, _TRAINED_CELLS = 14, 37 * 37
_GIANT = "giant"
# Without `mask_token`, which only the pretraining uses.
_OWN = re.compile(r"cls_token|pos_embed|register_tokens|(patch_embed|norm|blocks)\..*")


class Variant(NamedTuple):
    """Name of a size of DINOv2, and its number of blocks."""

    name: str
    blocks: int


VARIANTS = {384: Variant("small", 12), 768: Variant("base", 12), 1024: Variant("large", 24), 1536: Variant(_GIANT, 40)}
"""Variants by width."""


class PublishedDinoV2(NamedTuple):
    """DINOv2 in a checkpoint.

    Args:
        prefix: prefix of the names of its tensors.
        width: width of its tokens, a key of VARIANTS.
        registers: number of register tokens.
    """

    prefix: str
    width: int
    registers: int

    @classmethod
    def find(cls, state: State, prefix: str, path: Path) -> "PublishedDinoV2":
        """Find DINOv2 in the state of a checkpoint.

        Raises:
            ModelError: if there is none of a known width.
        """
        token, registers = state.get(f"{prefix}cls_token"), state.get(f"{prefix}register_tokens")
        if token is None or token.ndim != 3 or token.shape[2] not in VARIANTS:
            widths, found = " or ".join(map(str, VARIANTS)), "none" if token is None else tuple(token.shape)
            raise ModelError(
                f"{path} holds no DINOv2: expected {prefix}cls_token of shape (1, 1, {widths}), found {found}; give "
                "the file that the authors of this family publish"
            )
        return cls(prefix, token.shape[2], 0 if registers is None or registers.ndim != 3 else registers.shape[1])

    @property
    def variant(self) -> Variant:
        """Name and number of blocks."""
        return VARIANTS[self.width]

    @property
    def name(self) -> str:
        """Name of the variant for `build_dinov2`, with its registers."""
        return f"{self.variant.name}-reg{self.registers}" if self.registers else self.variant.name

    def shapes(self, state: Mapping[str, object]) -> Shapes:
        """Expected shapes of the tensors, including the mask token of the pretraining if the state has it."""
        width, mask = self.width, f"{self.prefix}mask_token"
        shapes: Shapes = {
            "cls_token": (1, 1, width),
            "pos_embed": (1, 1 + _TRAINED_CELLS, width),
            **affine("patch_embed.proj", width, 3, _PATCH_PX, _PATCH_PX),
            **affine("norm", width),
        }
        if self.registers:
            shapes["register_tokens"] = (1, self.registers, width)
        for index in range(self.variant.blocks):
            shapes |= {f"blocks.{index}.{key}": shape for key, shape in self._block_shapes().items()}
        named = {f"{self.prefix}{key}": shape for key, shape in shapes.items()}
        return named | ({mask: (1, width)} if mask in state else {})

    def tensors(self, state: State, *, normed: bool = True) -> State:
        """Tensors of `state` with the names of the backbone; `normed` says whether it has a final norm."""
        mapped: State = {}
        for key, value in state.items():
            name = key.removeprefix(self.prefix)
            if key.startswith(self.prefix) and _is_used(name, normed=normed):
                mapped[f"backbone.vit.{_timm_name(name)}"] = value
        if self.registers:  # timm adds its position to the class token
            table = mapped["backbone.vit.pos_embed"]
            mapped["backbone.vit.cls_token"] = mapped["backbone.vit.cls_token"] + table[:, :1]
            mapped["backbone.vit.pos_embed"] = table[:, 1:].clone()
        return mapped

    def _block_shapes(self) -> Shapes:
        width = self.width
        shapes: Shapes = {
            **affine("norm1", width),
            **affine("attn.qkv", 3 * width, width),
            **affine("attn.proj", width, width),
            "ls1.gamma": (width,),
            **affine("norm2", width),
            "ls2.gamma": (width,),
        }
        if self.variant.name == _GIANT:  # SwiGLU
            hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
            return shapes | affine("mlp.w12", 2 * hidden, width) | affine("mlp.w3", width, hidden)
        return shapes | affine("mlp.fc1", 4 * width, width) | affine("mlp.fc2", width, 4 * width)


def preprocessing(*, antialias: bool) -> Preprocessing:
    """Preprocessing of most families: bilinear, to 322 x 322.

    Some families normalise before resizing. The result is the same, because interpolation weights sum to one.
    """
    return imagenet_preprocessing(INPUT_SIZE, "bilinear", antialias=antialias)


def _is_used(name: str, *, normed: bool) -> bool:
    """Whether a tensor with the prefix belongs to the backbone, not to an adapter or an unused layer."""
    return _OWN.fullmatch(name) is not None and (normed or not name.startswith("norm."))


def _timm_name(name: str) -> str:
    name = "reg_token" if name == "register_tokens" else name
    return name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
