"""Registry of aggregators; a new one is one new file and one line here."""

from collections.abc import Callable

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators.cls import ClassToken
from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.aggregators.mean import Mean
from vpr_dhe.features.aggregators.whitened import WhitenedGeM
from vpr_dhe.features.base import Aggregator

# Each takes the dimension of the tokens.
_BUILDERS: dict[str, Callable[[int], Aggregator]] = {
    "gem": lambda _: GeM(),
    "gem-unit-cells": lambda _: GeM(unit_cells=True),
    "gem-whitened": lambda dimension: WhitenedGeM(dimension, bands=1),
    "gem-2-bands-whitened": lambda dimension: WhitenedGeM(dimension, bands=2),
    "cls": lambda _: ClassToken(),
    "mean": lambda _: Mean(),
}


def aggregator_names() -> list[str]:
    """List the names of aggregators."""
    return list(_BUILDERS)


def build_aggregator(name: str, dimension: int) -> Aggregator:
    """Build an aggregator of tokens of a dimension.

    Args:
        name: `gem`; `gem-unit-cells` (cells are L2-normalised first, as in DHE-VPR); `gem-whitened` or
            `gem-2-bands-whitened` (see `vpr_dhe.training.whitening`); `cls`; `mean`.
        dimension: width of the tokens.

    Raises:
        ModelError: if the name is unknown.
    """
    if name not in _BUILDERS:
        raise ModelError(f"there is no aggregator {name!r}; choose one of {', '.join(_BUILDERS)}")
    return _BUILDERS[name](dimension)
