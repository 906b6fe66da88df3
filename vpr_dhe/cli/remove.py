"""`vpr-dhe remove`: removal of images from an index."""

import os
from typing import Annotated

import typer

from vpr_dhe.cli.options import IndexArgument

NAME = "remove"


def run(
    index: IndexArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Paths of images, relative to the indexed folder.")
    ],
) -> None:
    """Remove images from an index; `vpr-dhe compact` frees their space."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.index.place_index import PlaceIndex

    place_index = PlaceIndex.open(index)
    root = place_index.manifest.images_folder
    ids = [place_index.find(os.path.relpath(os.path.join(root, image), root)) for image in images]  # noqa: PTH118
    unknown = [image for image, id in zip(images, ids, strict=True) if id is None]
    if unknown:
        raise BadInputError(f"{index} holds no image {unknown[0]}; paths are relative to {root}")
    place_index.remove([id for id in ids if id is not None])
    print(f"{index}: {len(place_index)} images ({len(set(ids))} removed)")
