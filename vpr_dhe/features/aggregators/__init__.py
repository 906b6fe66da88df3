"""Aggregators by name."""

from collections.abc import Callable
from functools import partial

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators.cls import ClassToken
from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.aggregators.mean import Mean
from vpr_dhe.features.base import Aggregator

_BUILDERS: dict[str, Callable[[], Aggregator]] = {
    "gem": GeM,
    "gem-unit-cells": partial(GeM, unit_cells=True),
    "cls": ClassToken,
    "mean": Mean,
}


def aggregator_names() -> list[str]:
    """The names that `build_aggregator` knows."""
    return list(_BUILDERS)


def build_aggregator(name: str) -> Aggregator:
    """Build an aggregator: `gem`, `gem-unit-cells` (the cells are L2-normalised first, as in DHE-VPR), `cls`, `mean`.

    Raises:
        ModelError: if there is no such aggregator.
    """
    if name not in _BUILDERS:
        raise ModelError(f"there is no aggregator {name!r}; choose one of {', '.join(_BUILDERS)}")
    return _BUILDERS[name]()
