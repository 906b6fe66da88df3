"""Resizing of positional embeddings."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vpr_dhe.records import Grid


def resize_positional_embedding(
    embedding: Float[Tensor, "1 cells dimension"], source: Grid, target: Grid
) -> Float[Tensor, "1 target_cells dimension"]:
    """Resize a learned positional embedding, row-major, from one grid to another (bicubic)."""
    if source == target:
        return embedding
    maps = embedding.mT.unflatten(2, source)
    resized = functional.interpolate(maps, size=tuple(target), mode="bicubic", align_corners=False, antialias=True)
    return resized.flatten(2).mT


def resize_with_offset(
    embedding: Float[Tensor, "1 cells dimension"], source: Grid, target: Grid
) -> Float[Tensor, "1 target_cells dimension"]:
    """Resize as DINOv2 without registers does: bicubic, without antialiasing, by the factor (target + 0.1) / source.

    The offset, meant to avoid rounding errors in the target size, shifts the sampled points. An embedding of the target
    size is not resampled.

    Source: `interpolate_pos_encoding` of https://github.com/facebookresearch/dinov2.
    """
    if source == target:
        return embedding
    maps = embedding.mT.unflatten(2, source)
    factors = [(wanted + 0.1) / given for wanted, given in zip(target, source, strict=True)]
    resized = functional.interpolate(maps, scale_factor=factors, mode="bicubic", align_corners=False)
    return resized.flatten(2).mT
