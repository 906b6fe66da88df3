"""Split a place data set by area into a training and a test half.

    python datasets/split_by_area.py DATA --out FOLDER

writes the standard layout, with links to the images: `train` contains the images west of the median easting, `test`
those east of it. Images within `--gap-m` of the border are dropped, so that no place is on both sides.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from vpr_dhe.datasets import read_places
from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.errors import DatasetError, VprDheError
from vpr_dhe.records import ImageRecord, MetricPosition

GAP_M = 50.0
"""Default gap: twice the usual radius of positives."""


def split_by_area(root: Path, out: Path, gap_m: float = GAP_M) -> dict[str, int]:
    """Link the images of both halves, and count them by folder.

    Raises:
        DatasetError: if `out` exists, positions are not known in metres, or a half is empty.
    """
    if out.exists():
        raise DatasetError(f"{out} exists already; name a new folder")
    dataset = read_places(root)
    parts = {"database": dataset.database, "queries": dataset.queries}
    border_m = median(_easting_m(record) for part in parts.values() for record in part.records)
    sides = {
        "train": lambda record: _easting_m(record) < border_m - gap_m / 2,
        "test": lambda record: _easting_m(record) > border_m + gap_m / 2,
    }
    chosen = {
        (side, name): [record for record in part.records if lies_there(record)]
        for side, lies_there in sides.items()
        for name, part in parts.items()
    }
    if empty := [f"{side}/{name}" for (side, name), records in chosen.items() if not records]:
        raise DatasetError(f"nothing is left for {', '.join(empty)}; choose a gap smaller than {gap_m:g} m")
    for (side, name), records in chosen.items():
        _link(parts[name], records, out / "images" / side / name)
    return {f"{side}/{name}": len(records) for (side, name), records in chosen.items()}


def _easting_m(record: ImageRecord) -> float:
    if not isinstance(record.position, MetricPosition):
        raise DatasetError(f"{record.path} has no position in metres; only data sets with UTM positions can be split")
    return record.position.x_m


def _link(part: PlaceSplit, records: Sequence[ImageRecord], folder: Path) -> None:
    folder.mkdir(parents=True)
    for record in records:
        image = part.folder / record.path
        (folder / image.name).symlink_to(image.resolve())


def main() -> int:
    """Split, and print the number of images by folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a place data set in any layout that `vpr-dhe evaluate` reads")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--gap-m", type=float, default=GAP_M, help="width of the strip that is left out")
    arguments = parser.parse_args()
    try:
        counts = split_by_area(arguments.data, arguments.out, arguments.gap_m)
    except VprDheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, count in counts.items():
        print(f"{name}: {count} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
