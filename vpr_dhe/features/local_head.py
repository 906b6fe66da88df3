"""Head that computes local maps: descriptors for matching, and zero for unreliable cells.

Tokens of a network trained for classification are not trained to match between two views of a place. A convolution
over neighbouring tokens, trained by `vpr-dhe train local`, computes descriptors that are similar in both views, and
the probability that a cell has a correct match, which is low for sky, road and image borders.

Source: the pairing of a descriptor with its reliability follows Revaud et al., "R2D2: Repeatable and reliable detector
and descriptor", NeurIPS 2019, section 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import LocalMapHead
from vpr_dhe.features.fol_head import FOL, build_fol_head
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Grid

CONTEXT = "context"
"""Name of the head in model files."""

MIN_RELIABILITY = 0.2
"""Cells with a lower matching probability get a zero descriptor, which matches nothing."""

_SIDE = 3
# Entries of a unit token are small; a layer learns faster from inputs with a variance near one.
_INPUT_SCALE = 8.0


@dataclass(frozen=True)
class LocalHeadSizes:
    """Sizes of a head.

    Args:
        hidden: channels of the convolution.
        dimension: length of the descriptors.
    """

    hidden: int = 128
    dimension: int = 64

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "LocalHeadSizes":
        """Infer the sizes from the shapes of a head's tensors; the default without tensors."""
        if "descriptor.weight" not in state or state["descriptor.weight"].ndim != 4:
            return cls()
        dimension, hidden = state["descriptor.weight"].shape[:2]
        return cls(hidden, dimension)


class LocalHead(LocalMapHead):
    """Descriptors and reliabilities of cells, from the tokens of a backbone.

    Args:
        dimension: width of the tokens.
        sizes: sizes of the layers.
    """

    def __init__(self, dimension: int, sizes: LocalHeadSizes) -> None:
        super().__init__()
        self.context = nn.Conv2d(dimension, sizes.hidden, _SIDE, padding=_SIDE // 2)
        self.descriptor = nn.Conv2d(sizes.hidden, sizes.dimension, 1)
        self.shortcut = nn.Conv2d(dimension, sizes.dimension, 1, bias=False)
        self.reliability = nn.Conv2d(sizes.hidden, 1, 1)

    def forward(
        self,
        tokens: Float[Tensor, "batch cells dimension"],
        grid: Grid,
        confidence: Float[Tensor, "batch cells"] | None = None,  # noqa: ARG002 (predicts its own)
    ) -> Float[Tensor, "batch cells local"]:
        """Compute the local map: unit descriptors, and zero for unreliable cells."""
        descriptors, logits = self.cells(tokens, grid)
        return descriptors * (logits.sigmoid() >= MIN_RELIABILITY)[..., None]

    def cells(
        self, tokens: Float[Tensor, "batch cells dimension"], grid: Grid
    ) -> tuple[Float[Tensor, "batch cells local"], Float[Tensor, "batch cells"]]:
        """Compute unit descriptors and the logits of reliability; tokens need not be normalised."""
        maps = (_INPUT_SCALE * normalize(tokens, dim=-1)).mT.unflatten(2, (grid.rows, grid.columns))
        hidden = self.context(maps).relu()
        descriptors = (self.descriptor(hidden) + self.shortcut(maps)).flatten(2).mT
        return normalize(descriptors, dim=-1), self.reliability(hidden).flatten(1)


_BUILDERS: dict[str, Callable[[int, Mapping[str, Tensor]], LocalMapHead]] = {
    CONTEXT: lambda dimension, state: LocalHead(dimension, LocalHeadSizes.of(state)),
    FOL: build_fol_head,
}


def build_local_head(name: str, dimension: int, state: Mapping[str, Tensor] | None = None) -> LocalMapHead:
    """Build a head for tokens of a dimension, with sizes inferred from its state, which is not loaded.

    Raises:
        ModelError: if the name is unknown.
    """
    if name not in _BUILDERS:
        known = " or ".join(map(repr, _BUILDERS))
        raise ModelError(f"there is no local head {name!r}; expected {known}; update vpr-dhe")
    return _BUILDERS[name](dimension, state or {})


def local_head_of(model: ModelFile) -> LocalHead | None:
    """Load the local head of a model; None if it has none, or one that this package does not train."""
    if model.architecture.local_head != CONTEXT:
        return None
    state = model.part("local_head")
    head = LocalHead(state["context.weight"].shape[1], LocalHeadSizes.of(state))
    head.load_state_dict({name: value.float() for name, value in state.items()})
    return head
