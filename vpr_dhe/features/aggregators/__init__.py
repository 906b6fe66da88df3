"""Registry of aggregators; a new one is one new file and one line here."""

from collections.abc import Callable, Mapping

from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators.boq import BagOfQueries, BoqSizes
from vpr_dhe.features.aggregators.cls import ClassToken
from vpr_dhe.features.aggregators.edtformer import EdtFormerDecoder, EdtFormerSizes
from vpr_dhe.features.aggregators.fol import FoLAggregator
from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.aggregators.gem_linear import gem_linear_of
from vpr_dhe.features.aggregators.joint_vlad import JointVlad, JointVladSizes
from vpr_dhe.features.aggregators.mean import Mean
from vpr_dhe.features.aggregators.mixvpr import MixSizes, MixVpr
from vpr_dhe.features.aggregators.salad import Salad, SaladSizes
from vpr_dhe.features.aggregators.selavprpp import build_selavprpp
from vpr_dhe.features.aggregators.tokens import AggregationTokens
from vpr_dhe.features.aggregators.vlad import NetVlad, Vlad, VladSizes
from vpr_dhe.features.aggregators.whitened import WhitenedGeM
from vpr_dhe.features.base import Aggregator

# Each takes the dimension of the tokens and the tensors that will be loaded, whose shapes may determine layer sizes.
_BUILDERS: dict[str, Callable[[int, Mapping[str, Tensor]], Aggregator]] = {
    "gem": lambda *_: GeM(),
    "gem-unit-cells": lambda *_: GeM(unit_cells=True),
    "gem-whitened": lambda dimension, _: WhitenedGeM(dimension, bands=1),
    "gem-2-bands-whitened": lambda dimension, _: WhitenedGeM(dimension, bands=2),
    "vlad": lambda dimension, state: Vlad(dimension, VladSizes.of(state)),
    "netvlad": lambda dimension, state: NetVlad(dimension, VladSizes.of(state)),
    "joint-vlad": lambda dimension, state: JointVlad(dimension, JointVladSizes.of(state)),
    "gem-linear": gem_linear_of,
    "mixvpr": lambda dimension, state: MixVpr(dimension, MixSizes.of(state)),
    "cls": lambda *_: ClassToken(),
    "mean": lambda *_: Mean(),
    "salad": lambda dimension, state: Salad(dimension, SaladSizes.of(state)),
    "boq": lambda dimension, state: BagOfQueries(dimension, BoqSizes.of(state)),
    "aggregation-tokens": lambda *_: AggregationTokens(),
    "selavprpp": build_selavprpp,
    "fol": lambda dimension, state: FoLAggregator(dimension, SaladSizes.of(state)),
    "edtformer": lambda dimension, state: EdtFormerDecoder(dimension, EdtFormerSizes.of(state)),
}


def aggregator_names() -> list[str]:
    """List the names of aggregators."""
    return list(_BUILDERS)


def build_aggregator(name: str, dimension: int, state: Mapping[str, Tensor] | None = None) -> Aggregator:
    """Build an aggregator of tokens of a dimension, without loading its state.

    Args:
        name: `gem`; `gem-unit-cells` (cells are L2-normalised first, as in DHE-VPR); `gem-whitened` or
            `gem-2-bands-whitened` (see `vpr_dhe.training.whitening`); `vlad`, `netvlad`, or `joint-vlad`, which also
            pools descriptors of a local head (see `vpr_dhe.training.vlad`); `cls`; `mean`; and those of published
            models: `gem-linear` (CosPlace and EigenPlaces), `mixvpr`, `salad`, `boq`, `aggregation-tokens` (ImAge),
            `selavprpp`, `fol`, `edtformer`.
        dimension: width of the tokens.
        state: tensors that will be loaded; layer sizes are inferred from their shapes.

    Raises:
        ModelError: if the name is unknown.
    """
    if name not in _BUILDERS:
        raise ModelError(f"there is no aggregator {name!r}; choose one of {', '.join(aggregator_names())}")
    return _BUILDERS[name](dimension, state or {})
