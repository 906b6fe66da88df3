"""Scenes of the photos that no training may see, by `benchmarks/splits.toml`."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_SPLITS = Path(__file__).parents[1] / "benchmarks/splits.toml"


def is_held_out(source: str, name: str) -> bool:
    """Whether a photo of a source folder shows a scene that is held out."""
    rule = _rule(source)
    found = re.fullmatch(rule["pattern"], name) if rule else None
    return found is not None and found["scene"] in rule["held_out"]


@cache
def _rule(source: str) -> Mapping[str, Any]:
    """Rule of the data set whose database or queries are in a folder; empty if there is none."""
    rules = tomllib.loads(_SPLITS.read_text(encoding="utf-8")).values()
    folder = f"train_open/{source}"
    return next((rule for rule in rules if folder in (rule.get("database"), rule.get("queries"))), {})
