"""GSV-Cities as published: places for training, each with at least four images of different years.

Its folder Images has one folder for each city, with files named
CITY_PLACE_YEAR_MONTH_BEARING_LATITUDE_LONGITUDE_PANORAMA.jpg. The tables in its folder Dataframes contain the same data
and are not needed. Places are at least 100 m apart. There are no queries, so the data set is for training only.

Source: https://github.com/amaralibey/gsv-cities (Ali-bey et al., "GSV-Cities: Toward appropriate supervised visual
place recognition", Neurocomputing 2022).
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from vpr_dhe.errors import DatasetError
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import StrPath

IMAGES_PER_PLACE = 4
"""Minimum number of images of a place, as published."""

_IMAGES = "Images"
_NAME = re.compile(r"[^/]+?_(?P<place>\d{7})_\d{4}_\d{2}_\d+_-?[\d.]+_-?[\d.]+_.+\.jpg", re.IGNORECASE)
_LOOKED_AT = 20


@dataclass(frozen=True)
class TrainingPlace:
    """Images of one place.

    Args:
        name: name of the place, such as `Boston/0006385`.
        images: sorted paths of its images.
    """

    name: str
    images: tuple[Path, ...]


def is_gsv_cities(root: StrPath) -> bool:
    """Whether a folder has the layout, judged by the first file names of one city."""
    folder = Path(root) / _IMAGES
    if not folder.is_dir():
        return False
    city = next((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), None)
    return city is not None and any(_NAME.fullmatch(path.name) for path in islice(city.iterdir(), _LOOKED_AT))


def read_gsv_cities(root: StrPath, images_per_place: int = IMAGES_PER_PLACE) -> list[TrainingPlace]:
    """Read the places that have at least `images_per_place` images.

    Raises:
        DatasetError: if there are none, or a file name has another format.
        BadInputError: if there are no images.
    """
    folder = Path(root) / _IMAGES
    places = defaultdict[str, list[Path]](list)
    for path in list_images(folder):
        name = PurePosixPath(path)
        match = _NAME.fullmatch(name.name)
        if match is None:
            raise DatasetError(
                f"{folder / path} is not named like CITY_PLACE_YEAR_MONTH_BEARING_LATITUDE_LONGITUDE_PANORAMA.jpg, as "
                "all images of GSV-Cities are; move other files out of the folder"
            )
        places[f"{name.parent}/{match['place']}"].append(folder / path)
    kept = [TrainingPlace(name, tuple(images)) for name, images in places.items() if len(images) >= images_per_place]
    if not kept:
        raise DatasetError(
            f"{root}: none of the {len(places)} places has {images_per_place} images; lower --images-per-place"
        )
    return kept
