"""Names of the views of panoramas, importable without numpy: `pano.jpg#030`.

Directions are in degrees clockwise from the centre of the panorama.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from vpr_dhe.errors import BadInputError

MIN_VIEWS, MAX_VIEWS = 6, 72
"""Minimum and maximum number of views: fewer leave gaps, more differ by less than 5 degrees."""

_NAME = re.compile(r"(.+)#(\d{3})", re.DOTALL)


class View(NamedTuple):
    """View of a panorama: its file, and the direction of the centre of the view."""

    file: Path
    yaw_deg: int


def view_name(path: str, yaw_deg: int) -> str:
    """Path of a view, from that of its panorama."""
    return f"{path}#{yaw_deg:03d}"


def split_view(path: str) -> tuple[str, int] | None:
    """Split the path of a view made by `view_name`; None for other paths."""
    found = _NAME.fullmatch(path)
    return (found[1], int(found[2])) if found and int(found[2]) < 360 else None


def view_of(path: Path) -> View | None:
    """Parse the path of a view; None for the path of a file."""
    split = split_view(str(path))
    # Not `Path.exists`, which raises errors of the drive.
    return None if split is None or os.path.exists(path) else View(Path(split[0]), split[1])  # noqa: PTH110


def file_of(path: Path) -> Path:
    """File of an image: the panorama of a view, or the path itself."""
    view = view_of(path)
    return path if view is None else view.file


def yaws_deg(views: int) -> list[int]:
    """Evenly spaced directions of views, the first at the centre of the panorama.

    Raises:
        BadInputError: if there are too few or too many.
    """
    if not MIN_VIEWS <= views <= MAX_VIEWS:
        raise BadInputError(f"panorama_views is {views}; expected {MIN_VIEWS} to {MAX_VIEWS}")
    return [round(360 * number / views) for number in range(views)]
