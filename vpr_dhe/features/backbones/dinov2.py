"""DINOv2 as its authors publish it: timm's transformer with the positional table of the original code.

Source: https://github.com/facebookresearch/dinov2 (Oquab et al., "DINOv2: Learning robust visual features without
supervision", TMLR 2024; Darcet et al., "Vision transformers need registers", ICLR 2024).
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones.timm_vit import TimmViT
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.models.positional_embedding import resize_positional_embedding, resize_with_offset
from vpr_dhe.records import Grid, Size

PREFIX, UNNORMED_PREFIX = "dinov2:", "dinov2-unnormed:"
SIZES = ("small", "base", "large", "giant")
_REGISTERS = "reg4"


def build_dinov2(name: str, *, blocks: int | None, input_size: Size) -> "DinoV2":  # noqa: ARG001 (any size)
    """Build `dinov2:SIZE`, or `dinov2:SIZE-reg4` with registers, with random weights; it takes any input size.

    Raises:
        ModelError: if there is no such size, or it has fewer blocks.
    """
    return DinoV2(name.removeprefix(PREFIX), blocks=blocks)


def build_unnormed(name: str, *, blocks: int | None, input_size: Size) -> "DinoV2":  # noqa: ARG001 (any size)
    """Build `dinov2-unnormed:SIZE`, which leaves out the final norm, as BoQ does; see `build_dinov2`."""
    return DinoV2(name.removeprefix(UNNORMED_PREFIX), blocks=blocks, normed=False)


class DinoV2(TimmViT):
    """DINOv2, optionally cut after `blocks` blocks.

    Inputs whose sides are not multiples of 14 pixels are resized to the nearest multiples (bilinear, antialiased; ties
    to an even number of patches), as MegaLoc does.

    As in the original code, the positional embedding of models without registers is resized by a scale factor without
    antialiasing, and that of models with registers by size with antialiasing; timm does the latter for all models.

    Args:
        name: `small`, `base`, `large` or `giant`, and `-reg4` with four registers.
        blocks: number of blocks to keep; None keeps all.
        normed: whether the final norm is applied.

    Raises:
        ModelError: if there is no such size, or it has fewer blocks.
    """

    antialiased_positions: ClassVar[bool | None] = None
    """Whether the positional embedding is resized by size and with antialiasing; None: only with registers."""

    def __init__(self, name: str, *, blocks: int | None = None, normed: bool = True) -> None:
        super().__init__(_timm_name(name), blocks=blocks)
        if not normed:
            self.vit.norm = nn.Identity()
        antialiased = self.antialiased_positions
        self._antialiased = self.vit.reg_token is not None if antialiased is None else antialiased

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens and the class token."""
        tokens, grid = self.embedded(images)
        for block in self.vit.blocks:
            tokens = block(tokens)
        return self.split(self.vit.norm(tokens), grid)

    def embedded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch tokens dimension"], Grid]:
        """Return the sequence of class token, registers and patches, with positions, and the grid of patches."""
        embedded = self.vit.patch_embed(_of_whole_patches(images, self.patch_size))
        grid = Grid(*embedded.shape[1:3])
        start, positions = self._positions(grid)
        parts = [start, self.vit.reg_token] if self.vit.reg_token is not None else [start]
        prefix = [part.expand(images.shape[0], -1, -1) for part in parts]
        return torch.cat([*prefix, embedded.flatten(1, 2) + positions], dim=1), grid

    def split(self, tokens: Float[Tensor, "batch tokens dimension"], grid: Grid) -> DenseTokens:
        """Split tokens into class token and patches; registers are dropped."""
        return DenseTokens(tokens[:, self.vit.num_prefix_tokens :], grid, tokens[:, 0])

    def _positions(self, grid: Grid) -> tuple[Float[Tensor, "1 1 dimension"], Float[Tensor, "1 cells dimension"]]:
        """Class token with its position, which models with registers already include, and positions of patches."""
        trained, table, start = Grid(*self.vit.patch_embed.grid_size), self.vit.pos_embed, self.vit.cls_token
        if table.shape[1] > trained.rows * trained.columns:
            start, table = start + table[:, :1], table[:, 1:]
        resize = resize_positional_embedding if self._antialiased else resize_with_offset
        return start, resize(table, trained, grid)


def _timm_name(name: str) -> str:
    size, _, registers = name.partition("-")
    if size not in SIZES or registers not in ("", _REGISTERS):
        raise ModelError(f"there is no DINOv2 {name!r}; expected one of {', '.join(SIZES)}, or SIZE-{_REGISTERS}")
    return f"vit_{size}_patch14_{registers}{'_' if registers else ''}dinov2"


def _of_whole_patches(
    images: Float[Tensor, "batch 3 height width"], patch: Size
) -> Float[Tensor, "batch 3 whole_height whole_width"]:
    height, width = images.shape[-2:]
    whole = _whole(height, patch.height), _whole(width, patch.width)
    if whole == (height, width):
        return images
    return functional.interpolate(images, whole, mode="bilinear", align_corners=False, antialias=True)


def _whole(side_px: int, patch_px: int) -> int:
    return max(round(side_px / patch_px), 1) * patch_px
