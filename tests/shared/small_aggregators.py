"""Aggregators of every name, of sizes for inputs of a few cells."""

from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.aggregators.boq import BagOfQueries, BoqSizes
from vpr_dhe.features.aggregators.edtformer import EdtFormerDecoder, EdtFormerSizes
from vpr_dhe.features.aggregators.fol import FoLAggregator
from vpr_dhe.features.aggregators.mixvpr import MixSizes, MixVpr
from vpr_dhe.features.aggregators.salad import Salad, SaladSizes
from vpr_dhe.features.aggregators.selavprpp import SelaVprPPAggregator
from vpr_dhe.features.base import Aggregator

_TRANSPORT = SaladSizes(clusters=3, cluster_dimension=4, token_dimension=5, hidden=6)
_SMALL = {
    "salad": lambda dimension: Salad(dimension, _TRANSPORT),
    "fol": lambda dimension: FoLAggregator(dimension, _TRANSPORT),
    "boq": lambda dimension: BagOfQueries(dimension, BoqSizes(width=8, queries=3, blocks=2, rows=4)),
    "edtformer": lambda dimension: EdtFormerDecoder(dimension, EdtFormerSizes(queries=3, layers=2, channels=5, rows=4)),
    "selavprpp": lambda dimension: SelaVprPPAggregator(dimension, 9),
}
_OF_CELLS = {
    "mixvpr": lambda dimension, cells: MixVpr(dimension, MixSizes(cells, depth=2, channels=3, rows=2)),
}
"""Aggregators whose weights fit one number of cells."""


def small_aggregator(name: str, dimension: int, cells: int) -> Aggregator:
    """An aggregator of random weights, built by its name from the shapes of its tensors, for a number of cells."""
    if name in _OF_CELLS:
        made = _OF_CELLS[name](dimension, cells)
    elif name in _SMALL:
        made = _SMALL[name](dimension)
    else:
        return build_aggregator(name, dimension)
    built = build_aggregator(name, dimension, made.state_dict())
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in made.state_dict().items()
    }
    return built
