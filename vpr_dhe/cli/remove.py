"""`vpr-dhe remove`: removal of images from an index."""

from typing import Annotated

import typer

from vpr_dhe.cli.shared.options import IndexArgument

NAME = "remove"
EXAMPLES = """
vpr-dhe remove my-index street/0041.jpg
"""


def run(
    index: IndexArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Paths of images, relative to the indexed folder.")
    ],
) -> None:
    """Remove images from an index; `vpr-dhe compact` frees their space."""
    from vpr_dhe.index.place_index import PlaceIndex

    place_index = PlaceIndex.open(index)
    ids = place_index.ids_of(images)
    place_index.remove(ids)
    print(f"{index}: {len(place_index)} images ({len(set(ids))} removed)")
