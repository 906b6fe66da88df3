"""Indexed images that a listing of their folder lacks."""

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from vpr_dhe.images.listing import ImageListing
from vpr_dhe.images.opened import size_in_file
from vpr_dhe.images.view_names import split_view
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import ImageRecord


@dataclass(frozen=True)
class MissingImages:
    """Paths by id: of images that are gone from their folder or its list, and of those that cannot be read now.

    `unlisted` is the number of those gone that are still in the folder.
    """

    gone: Mapping[int, str] = field(default_factory=dict)
    unreadable: Mapping[int, str] = field(default_factory=dict)
    unlisted: int = 0

    def notes(self, *, pruned: bool) -> Iterator[str]:
        """Lines about these images, after those that are gone were removed from the index or kept."""
        if self.unreadable:
            example = next(iter(self.unreadable.values()))
            yield f"{len(self.unreadable)} indexed images cannot be read now and are kept, such as {example}"
        if self.gone:
            example, count = next(iter(self.gone.values())), len(self.gone)
            if pruned:
                what = "images that are not in the list" if self.unlisted else "missing images"
                yield f"removed {count} {what}, such as {example}"
            else:
                what = "not in the list" if self.unlisted else "missing"
                yield f"{count} indexed images are {what}, such as {example}; --prune removes them from the index"


def find_missing(index: PlaceIndex, records: Sequence[ImageRecord], listing: ImageListing) -> MissingImages:
    """Find the indexed images of a folder that are not among its records.

    Files that were left out of the listing, or lie below what could not be listed, may still be there. So may the views
    of a panorama that cannot be read now, which is listed under its own name.
    """
    listed = {record.path for record in records}
    missing = {id: index.image(id).path for id in index.ids_missing_from(records, listing.folder).tolist()}
    unreadable = {
        id: path
        for id, path in missing.items()
        if listing.may_hold(_path_in(listing.folder, path, index)) or _is_view_of(path, listed, index)
    }
    gone = {id: path for id, path in missing.items() if id not in unreadable}
    unlisted = sum(_path_in(listing.folder, path, index) in listing.unlisted for path in gone.values())
    return MissingImages(gone, unreadable, unlisted)


def _is_view_of(path: str, listed: Set[str], index: PlaceIndex) -> bool:
    """Whether a path is that of a view of a listed image that cannot be read."""
    view = split_view(path)
    return view is not None and view[0] in listed and size_in_file(index.manifest.folders.locate(view[0])) is None


def _path_in(folder: Path, path: str, index: PlaceIndex) -> str:
    """Path relative to a folder of an image in the index."""
    folders = index.manifest.folders
    if not folders.merged:
        return path
    return os.path.relpath(folders.locate(path), folder.resolve())
