"""Image pairs with a known homography: a `pairs.csv` of image_a, image_b and h00 to h22, beside the images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from vpr_dhe.errors import DatasetError

_ENTRIES = [f"h{row}{column}" for row in range(3) for column in range(3)]
_REQUIRED = ["image_a", "image_b", *_ENTRIES]


@dataclass(frozen=True)
class HomographyPair:
    """Two images and the homography that maps pixels of A to pixels of B."""

    name: str
    image_a: Path
    image_b: Path
    homography: Float64[np.ndarray, "3 3"]


def read_homography_pairs(folder: Path) -> list[HomographyPair]:
    """Read `pairs.csv` of a folder; image names are relative to it.

    Raises:
        DatasetError: if the table or an image is missing, or a column is.
    """
    path = folder / "pairs.csv"
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; expected a table with the columns {', '.join(_REQUIRED)}")
    table = pd.read_csv(path)
    missing = [column for column in _REQUIRED if column not in table.columns]
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; expected {', '.join(_REQUIRED)}")
    matrices = table[_ENTRIES].to_numpy(np.float64).reshape(-1, 3, 3)
    names = table["name"] if "name" in table.columns else table["image_a"]
    return [
        HomographyPair(str(name), _existing(folder / str(a)), _existing(folder / str(b)), matrix / matrix[2, 2])
        for name, a, b, matrix in zip(names, table["image_a"], table["image_b"], matrices, strict=True)
    ]


def _existing(image: Path) -> Path:
    if not image.is_file():
        raise DatasetError(f"{image} is named by pairs.csv but does not exist; copy it there or remove its row")
    return image
