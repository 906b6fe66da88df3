"""`vpr-dhe remove`: removal of images from an index."""

from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.options import IndexArgument

if TYPE_CHECKING:
    from vpr_dhe.index.image_folders import ImageFolders
    from vpr_dhe.index.place_index import PlaceIndex

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
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.index.place_index import PlaceIndex

    place_index = PlaceIndex.open(index)
    folders = place_index.manifest.folders
    ids = [place_index.find(folders.name_of(image)) for image in images]
    if None in ids:
        ids = [_find_respelt(place_index, image) if id is None else id for image, id in zip(images, ids, strict=True)]
    unknown = [image for image, id in zip(images, ids, strict=True) if id is None]
    if unknown:
        raise BadInputError(
            f"{index} holds no image {unknown[0]}; paths are relative to {folders.main}{_merged_text(folders)}"
        )
    place_index.remove([id for id in ids if id is not None])
    print(f"{index}: {len(place_index)} images ({len(set(ids))} removed)")


def _merged_text(folders: "ImageFolders") -> str:
    """Folders with names of their own, for a message; empty if there are none."""
    return "".join(f", or begin with {one.name}/ for {one.folder}" for one in folders.merged)


def _find_respelt(index: "PlaceIndex", image: str) -> int | None:
    """Id of the only image whose path has these letters in another Unicode form, as of another system; else None."""
    from vpr_dhe.runtime.image_names import composed

    found = [id for id in index.ids.tolist() if composed(index.image(id).path) == composed(image)]
    return found[0] if len(found) == 1 else None
