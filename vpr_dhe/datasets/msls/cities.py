"""Published cities of MSLS and their folders."""

import itertools
from pathlib import Path

from vpr_dhe.errors import DatasetError

# Cities and their order: mapillary_sls/datasets/msls.py of github.com/mapillary/mapillary_sls.
# fmt: off
TRAIN = (
    "trondheim", "london", "boston", "melbourne", "amsterdam", "helsinki", "tokyo", "toronto", "saopaulo", "moscow",
    "zurich", "paris", "bangkok", "budapest", "austin", "berlin", "ottawa", "phoenix", "goa", "amman", "nairobi",
    "manila",
)
# fmt: on
_VAL = ("cph", "sf")
TEST = ("miami", "athens", "buenosaires", "stockholm", "bengaluru", "kampala")
SPLITS = {"train": TRAIN, "val": _VAL, "test": TEST}
QUERY, DATABASE = "query", "database"


def recognises(root: Path) -> bool:
    """Whether a folder holds a city of MSLS."""
    return bool(cities_of(root))


def cities_of(root: Path, within: str = "") -> list[str]:
    """List the published cities with a query or database folder or, if given, a subfolder `within` of these."""
    return [
        city
        for city in itertools.chain.from_iterable(SPLITS.values())
        if any((_folder(root, city) / side / within).is_dir() for side in (QUERY, DATABASE))
    ]


def require_root(root: Path) -> None:
    """Check that MSLS was extracted into a folder.

    Raises:
        DatasetError: if not; the message names a nearby folder with the data set, if there is one.
    """
    if recognises(root):
        return
    if not root.is_dir():
        raise DatasetError(f"data set folder {root} does not exist; expected the one that MSLS was extracted into")
    nested = (folder.parent for name in ("train_val", "test") for folder in root.glob(f"*/{name}"))
    near = next((folder for folder in [*root.resolve().parents[:3], *nested] if recognises(folder)), None)
    advice = "extract the archives of MSLS there" if near is None else f"give {near} instead"
    raise DatasetError(
        f"{root} is not the folder that MSLS was extracted into: it has no train_val/CITY/query or test/CITY/query; "
        f"{advice}"
    )


def require_city(root: Path, city: str) -> Path:
    """Return the folder of a city.

    Raises:
        DatasetError: if the query or the database folder is missing.
    """
    found = _folder(root, city)
    for folder in (found, found / DATABASE, found / QUERY):
        if not folder.is_dir():
            others = [other for other in cities_of(root, "images") if other != city]
            raise DatasetError(
                f"{folder} does not exist; expected {found}/{{query,database}}; extract metadata.zip and all "
                f"images_vol_*.zip of MSLS into {root}, or name the cities that you have: --split "
                f"{others[0] if others else 'cph'} reads only one city"
            )
    return found


def _folder(root: Path, city: str) -> Path:
    return root / ("test" if city in TEST else "train_val") / city
