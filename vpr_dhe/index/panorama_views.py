"""Records of the views of panoramas, in place of the panoramas."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vpr_dhe.images.opened import size_in_file
from vpr_dhe.images.panoramas import is_panorama
from vpr_dhe.images.view_names import view_name, yaws_deg
from vpr_dhe.records import ImageRecord


def with_views(
    records: Sequence[ImageRecord], locate: Callable[[str], Path], views: int
) -> tuple[list[ImageRecord], int]:
    """Replace the records of panoramas by those of their views; returns them, and the number of panoramas.

    `locate` finds the file of a path. Views have the position and time of their panorama, and its heading turned by
    their direction.

    Raises:
        BadInputError: if the number of views is out of range.
    """
    yaws, expanded, panoramas = yaws_deg(views), list[ImageRecord](), 0
    for record in records:
        size = size_in_file(locate(record.path))
        if size is None or not is_panorama(size):
            expanded.append(record)
            continue
        panoramas += 1
        expanded += [
            replace(record, path=view_name(record.path, yaw), heading_deg=turned(record.heading_deg, yaw))
            for yaw in yaws
        ]
    return expanded, panoramas


def turned(heading_deg: float | None, yaw_deg: int) -> float | None:
    """Heading of a view, from that of its panorama; None if that is unknown."""
    return None if heading_deg is None else (heading_deg + yaw_deg) % 360
