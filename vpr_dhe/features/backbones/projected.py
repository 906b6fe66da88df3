"""Backbone with its tokens projected to another width by a linear layer, as in students trained by distillation."""

from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.records import Size

PREFIX = "projected:"


def projected_name(dimension: int, backbone: str) -> str:
    """Name of a backbone whose tokens are projected to `dimension`."""
    return f"{PREFIX}{dimension}:{backbone}"


def build_projected(name: str, *, blocks: int | None, input_size: Size) -> "Projected":
    """Build `projected:DIMENSION:BACKBONE` with random weights.

    Raises:
        ModelError: if there is no such backbone, or the dimension is not a positive number.
    """
    from vpr_dhe.features.backbones import build_backbone  # here, because the registry lists this builder

    dimension, _, inner = name.removeprefix(PREFIX).partition(":")
    if not dimension.isdecimal() or not int(dimension) or not inner:
        raise ModelError(f"{name!r} names no dimension and backbone; write {projected_name(80, 'cct_7_7x2_224')}")
    return Projected(build_backbone(inner, blocks=blocks, input_size=input_size), int(dimension))


class Projected(Backbone):
    """Backbone and a linear layer on its patch tokens; other tokens are dropped.

    Args:
        backbone: backbone whose tokens are projected.
        dimension: width of the projected tokens.
    """

    def __init__(self, backbone: Backbone, dimension: int) -> None:
        super().__init__()
        self.backbone, self.dimension, self.convolutional = backbone, dimension, backbone.convolutional
        self.projection = nn.Linear(backbone.dimension, dimension)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one projected token per cell."""
        tokens = self.backbone(images)
        return DenseTokens(self.projection(tokens.patches), tokens.grid)
