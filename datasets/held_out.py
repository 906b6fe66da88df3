"""Training images, and held-out scenes, by `benchmarks/splits.toml`."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vpr_dhe.images.listing import list_images

_SPLITS = Path(__file__).parents[1] / "benchmarks/splits.toml"


def is_held_out(source: str, name: str) -> bool:
    """Whether an image of a source folder shows a held-out scene."""
    rule = _rule(source)
    found = re.fullmatch(rule["pattern"], name) if rule else None
    return found is not None and found["scene"] in rule["held_out"]


def link_images(
    data: Path,
    out: Path,
    sources: Iterable[str],
    *,
    held_out: bool = False,
    shares: Mapping[str, int] = MappingProxyType({}),
    folders: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Link images of source folders, unless the links exist.

    Args:
        data: folder of the source folders.
        out: folder of the links.
        sources: names of the source folders.
        held_out: whether to link images of held-out scenes or of all other scenes.
        shares: n for sources of which only every n-th image is linked.
        folders: names of folders in `out`, for sources whose folder has another name.
    """
    for source in sources:
        folder = out / folders.get(source, source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in list_images(data / source)[:: shares.get(source, 1)]:
            link = folder / name.replace("/", "__")
            if is_held_out(source, name) == held_out and not link.exists():
                link.symlink_to((data / source / name).resolve())


@cache
def _rule(source: str) -> Mapping[str, Any]:
    """Rule of the data set with database or queries in a folder; empty if there is none."""
    rules = tomllib.loads(_SPLITS.read_text(encoding="utf-8")).values()
    folder = f"train_open/{source}"
    return next((rule for rule in rules if folder in (rule.get("database"), rule.get("queries"))), {})
