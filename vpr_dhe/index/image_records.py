"""Images of a folder that are to be indexed, and their records."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from vpr_dhe.datasets.image_lists import list_beside, read_image_list
from vpr_dhe.datasets.standard import split_of
from vpr_dhe.errors import ListingError
from vpr_dhe.geography.position_table import read_positions
from vpr_dhe.images.listing import ImageListing, survey_images
from vpr_dhe.index.panorama_views import with_views
from vpr_dhe.records import ImageRecord

Notify: TypeAlias = Callable[[str], object]
"""Callback for notes to the user: called with one line of text."""


def without_notes(_note: str) -> None:
    """Ignore a note."""


def list_for_indexing(
    folder: Path, image_list: Path | None = None, *, strict: bool = False, prune: bool = False, notify: Notify
) -> ImageListing:
    """List the images of a folder, or those that a list names and that exist; notes say what is left out.

    Raises:
        BadInputError: if the folder is missing, or holds no images.
        DatasetError: if the list cannot be read, or names no image of the folder.
        ListingError: with `strict` or `prune`, if a part of the folder cannot be listed; with `strict`, if a listed
            image is missing.
    """
    if image_list is not None:
        return _listed(folder, image_list, strict=strict, notify=notify)
    listing = survey_images(folder)
    if prune and listing.unreadable:
        raise ListingError(
            f"{listing.unreadable_text}, so images that are gone cannot be told from those in it; make it readable, or "
            "leave out --prune"
        )
    if strict:
        listing.require_complete()
    for note in listing.notes:
        notify(note)
    if beside := list_beside(folder):
        notify(f"{beside} is not used; to index only the images that it lists, add --list {beside}")
    return listing


def _listed(folder: Path, image_list: Path, *, strict: bool, notify: Notify) -> ImageListing:
    listed = read_image_list(image_list, folder)
    if strict and listed.missing:
        raise ListingError(f"{image_list} lists {listed.missing[0]}, which is not in {folder}; remove it from the list")
    notify(listed.text)
    missing = frozenset(listed.missing)
    paths = tuple(path for path in listed.paths if path not in missing)
    return ImageListing(folder, paths, unlisted=frozenset(listed.left_out))


def read_records(listing: ImageListing, tables: Iterable[Path], notify: Notify) -> Sequence[ImageRecord]:
    """Make the records of images, with positions and times from tables; later tables take precedence.

    Raises:
        BadInputError: if a table cannot be read, or names none of the images.
    """
    records = split_of(listing.folder, listing.paths).records
    for table in tables:
        placed = read_positions(table).apply(records, listing.folder)
        for unmatched, what in (
            (placed.rows_without_image, "rows match no image"),
            (placed.images_without_row, "images have no row"),
        ):
            if unmatched.count:
                notify(f"{table}: {unmatched.count} {what}, such as {unmatched.example}")
        records = placed.records
    return records


def with_panorama_views(
    records: Sequence[ImageRecord], folder: Path, views: int, notify: Notify
) -> Sequence[ImageRecord]:
    """Replace panoramas by their views, if any, and note their number; 0 views leave panoramas whole."""
    if not views:
        return records
    expanded, panoramas = with_views(records, folder.joinpath, views)
    notify(f"{folder}: {panoramas} of {len(records)} images are panoramas of two to one, in {views} views each")
    return expanded
