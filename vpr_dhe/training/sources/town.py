"""Pairs of a synthetic town: two views of one facade on different days, with the exact homography of its plane."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, Int32

from vpr_dhe.errors import BadInputError
from vpr_dhe.synthetic_town.town import Appearance, Camera, SyntheticTown
from vpr_dhe.training.sources.base import PairSource, TrainingPair

# A facade with a smaller share of either view hardly determines the homography at the image corners.
_MIN_SHARE = 0.25
_TRIES = 12
_MATCH_STEP_PX = 4
_MAX_SHIFT_M, _MAX_TURN_DEG, _MAX_PITCH_DEG = 4.0, 20.0, 3.0
# Relative to the street: oblique and perpendicular views to either side.
_HEADINGS_DEG = (60.0, 90.0, 120.0, 240.0, 270.0, 300.0)


class TownPairs(PairSource):
    """Pairs of views in several towns, `pairs_per_epoch` in total; different ones in every epoch.

    Views differ by up to 4 m along each axis and 20 degrees, and are of different days. The homography is that of the
    facade with the largest share of both views. Facades are cut from `photos` if there are any.
    """

    knows_homographies = True

    def __init__(self, seeds: Sequence[int], pairs_per_epoch: int, photos: Sequence[Path] = ()) -> None:
        self._seeds, self._pairs_per_epoch, self._photos = tuple(seeds), pairs_per_epoch, tuple(photos)
        fronts = f", with fronts from {len(photos)} photos of {photos[0].parent.name}" if photos else ""
        self.description = f"synthetic towns of seeds {', '.join(map(str, self._seeds))}{fronts}"

    def __len__(self) -> int:
        return self._pairs_per_epoch

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Search for two views that share a large part of a facade, and render them."""
        seed = self._seeds[index % len(self._seeds)]
        town, cameras = _town(seed, self._photos)
        best: _SharedFront | None = None
        # An upper bound: views that share a facade are always found much earlier.
        for attempt in range(100 * _TRIES):
            found = _sample_views(town, cameras, random)
            if found and (best is None or found.share > best.share):
                best = found
            if best and (best.share >= _MIN_SHARE or attempt >= _TRIES):
                break
        assert best is not None, "no two views of the town share a front"
        days = [Appearance.sample(random) for _ in range(2)]
        views = [town.render(camera, day) for camera, day in zip(best.cameras, days, strict=True)]
        places = frozenset([f"town {seed}, front {best.front}"])
        return TrainingPair(views[0], views[1], best.homography, places, matches=_matches(best))


@dataclass(frozen=True)
class _SharedFront:
    """Two cameras, and the number of the facade that fills at least `share` of the pixels of each.

    `maps` contain the number of the facade at each pixel of either view.
    """

    share: float
    front: int
    cameras: tuple[Camera, Camera]
    maps: tuple[Int32[np.ndarray, "height width"], Int32[np.ndarray, "height width"]]
    homography: Float64[np.ndarray, "3 3"]


def _sample_views(town: SyntheticTown, cameras: Sequence[Camera], random: np.random.Generator) -> _SharedFront | None:
    """Place a camera at random and another near it; None if they share no facade."""
    camera_a = _beside(cameras[int(random.integers(len(cameras)))], random)
    camera_b = _beside(camera_a, random)
    maps = town.facade_map(camera_a), town.facade_map(camera_b)
    shares = np.minimum(*(_shares(shown, len(town.facades)) for shown in maps))
    front = int(shares.argmax())
    if not shares[front]:
        return None
    try:
        homography = town.homography(camera_a, camera_b, town.facades[front])
    except BadInputError:  # seen edge-on
        return None
    return _SharedFront(float(shares[front]), front, (camera_a, camera_b), maps, homography)


def _shares(shown: Int32[np.ndarray, "height width"], facades: int) -> Float64[np.ndarray, " fronts"]:
    """Share of a view's pixels covered by each facade."""
    return np.bincount(shown[shown >= 0], minlength=facades) / shown.size


def _matches(found: _SharedFront) -> Float64[np.ndarray, "matches 4"]:
    """Corresponding pixels of the facade in both views, for every fourth row and column of the first.

    Cars and people of the day may occlude it.
    """
    rows, columns = (found.maps[0][::_MATCH_STEP_PX, ::_MATCH_STEP_PX] == found.front).nonzero()
    here = np.stack([columns, rows], axis=1) * float(_MATCH_STEP_PX)
    if not len(here):
        return np.empty((0, 4))
    there = cv2.perspectiveTransform(here[:, None], found.homography)[:, 0]
    height, width = found.maps[1].shape
    x, y = there.round().astype(int).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # Drop points that are occluded in the second view.
    inside[inside] = found.maps[1][y[inside], x[inside]] == found.front
    return np.concatenate([here, there], axis=1)[inside]


def _beside(camera: Camera, random: np.random.Generator) -> Camera:
    shift_m = random.uniform(-_MAX_SHIFT_M, _MAX_SHIFT_M, 2).tolist()
    return replace(
        camera,
        x_m=camera.x_m + shift_m[0],
        y_m=camera.y_m + shift_m[1],
        height_m=float(random.uniform(1.5, 2.3)),
        heading_deg=camera.heading_deg + float(random.uniform(-_MAX_TURN_DEG, _MAX_TURN_DEG)),
        pitch_deg=5.0 + float(random.uniform(-_MAX_PITCH_DEG, _MAX_PITCH_DEG)),
    )


@lru_cache(maxsize=8)
def _town(seed: int, photos: tuple[Path, ...]) -> tuple[SyntheticTown, Sequence[Camera]]:
    town = SyntheticTown(seed, photos=photos)
    return town, town.database_cameras(spacing_m=6.0, relative_headings_deg=_HEADINGS_DEG)
