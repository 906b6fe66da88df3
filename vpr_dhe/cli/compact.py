"""`vpr-dhe compact`: make an index smaller and its search faster."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import say_building

NAME = "compact"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    codec: Annotated[str | None, typer.Option(help="Store local maps with another codec: auto, int8, ...")] = None,
) -> None:
    """Merge small segments, free the room of removed images, and build what the search needs."""
    from vpr_dhe.index.place_index import PlaceIndex

    place_index = PlaceIndex.open(index)
    before = place_index.manifest
    place_index.compact(codec=codec, announce=say_building)
    after = place_index.manifest
    print(
        f"{index}: {after.count} images in {len(after.segments)} segments (from {len(before.segments)}), "
        f"{before.removed_count} removed images freed, local maps stored as {after.codec.name if after.codec else '-'}"
    )
