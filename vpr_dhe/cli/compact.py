"""`vpr-dhe compact`: make an index smaller and its search faster."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "compact"


def run(index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")]) -> None:
    """Merge small segments, free the room of removed images, and build what the search needs."""
    from vpr_dhe.index.place_index import PlaceIndex

    place_index = PlaceIndex.open(index)
    before = len(place_index.manifest.segments), place_index.manifest.removed_count
    place_index.compact()
    after = place_index.manifest
    print(
        f"{index}: {after.count} images in {len(after.segments)} segments (from {before[0]}), "
        f"{before[1]} removed images freed"
    )
