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
