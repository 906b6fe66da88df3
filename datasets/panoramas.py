"""Pairs of views of panoramas at different times, whose homographies are known from the cameras."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vpr_dhe.images.decoding import decode_named
from vpr_dhe.training.sources.base import PairSource, TrainingPair

_MAX_TURN_DEG = 30.0


@dataclass(frozen=True)
class View:
    """View of a panorama; angles in degrees: yaw, pitch and roll of the camera, and horizontal field of view."""

    path: Path
    place: str
    visit: int
    yaw: float
    pitch: float
    roll: float
    field_of_view: float
    width: int
    height: int

    @classmethod
    def of(cls, row: Mapping[str, str], path: Path) -> "View":
        """Parse a row of `views.csv`."""
        angles = (float(row[name]) for name in ("yaw", "pitch", "roll", "hfov"))
        return cls(path, row["place"], int(row["visit"]), *angles, int(row["width"]), int(row["height"]))

    @property
    def pixels_to_world(self) -> Float64[np.ndarray, "3 3"]:
        """Directions of pixels: x right, y down; R = Ry(yaw) Rx(pitch) Rz(roll)."""
        focal = self.width / 2 / np.tan(np.radians(self.field_of_view) / 2)
        camera = np.array([[focal, 0, (self.width - 1) / 2], [0, focal, (self.height - 1) / 2], [0, 0, 1]])
        (cy, cp, cr), (sy, sp, sr) = (f(np.radians([self.yaw, self.pitch, self.roll])) for f in (np.cos, np.sin))
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return yaw @ pitch @ roll @ np.linalg.inv(camera)


class PanoramaPairs(PairSource):
    """All pairs of views of one panorama at two visits, with different lighting, at most 30 degrees apart.

    Args:
        table: `views.csv` of the data set.
        paths: images by their names in the table; views without an image are skipped.
    """

    knows_homographies = True

    def __init__(self, table: Path, paths: Mapping[str, Path]) -> None:
        with table.open(newline="", encoding="utf-8") as file:
            views = [View.of(row, paths[row["file"]]) for row in csv.DictReader(file) if row["file"] in paths]
        views.sort(key=lambda view: (view.place, view.visit, view.path))
        self._pairs = [
            pair
            for _, same in groupby(views, key=lambda view: view.place)
            for pair in combinations(same, 2)
            if pair[0].visit != pair[1].visit and _turn_deg(*pair) <= _MAX_TURN_DEG
        ]
        self.description = f"{len(self._pairs)} pairs of views of panoramas"

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:  # noqa: ARG002 (nothing is random)
        """Decode both views."""
        one, other = self._pairs[index]
        homography = np.linalg.inv(other.pixels_to_world) @ one.pixels_to_world
        images = decode_named(one.path), decode_named(other.path)
        return TrainingPair(*images, homography / homography[2, 2], frozenset([one.place]), holds_everywhere=True)


def _turn_deg(one: View, other: View) -> float:
    turn = abs(one.yaw - other.yaw) % 360
    return min(turn, 360 - turn)
