"""Procedural town seen through a pinhole camera, with exact camera poses and plane homographies.

The town is a grid of streets lined with convex buildings; `write_town` renders a place recognition data set.
World: x east, y north, z up, in metres. Pixels: x right, y down, the centre of the top-left pixel is (0, 0).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int32

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.records import Image, Progress, StrPath
from vpr_dhe.synthetic_town.appearance import NEUTRAL, Appearance, apply_light
from vpr_dhe.synthetic_town.arrays import Matrix
from vpr_dhe.synthetic_town.camera import Camera
from vpr_dhe.synthetic_town.layout import lay_out
from vpr_dhe.synthetic_town.occluders import Model, make_models, paint_occluders, scatter
from vpr_dhe.synthetic_town.plans import FrontPlan
from vpr_dhe.synthetic_town.rendering import paint_surfaces
from vpr_dhe.synthetic_town.sky import paint_sky
from vpr_dhe.synthetic_town.streets import Street
from vpr_dhe.synthetic_town.surfaces import Facade
from vpr_dhe.synthetic_town.textures import Textures
from vpr_dhe.synthetic_town.visibility import Scene, View

__all__ = ["NEUTRAL", "Appearance", "Camera", "Facade", "SyntheticTown", "TownLayout", "image_name", "write_town"]

UTM_ORIGIN_M = (500_000.0, 5_700_000.0)
UTM_ZONE = (32, "U")
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class TownLayout:
    """Result of `write_town`: one path per camera, in the same order."""

    folder: Path
    database_paths: tuple[Path, ...]
    database_cameras: tuple[Camera, ...]
    query_paths: tuple[Path, ...]
    query_cameras: tuple[Camera, ...]


class SyntheticTown:
    """Town determined by its seed; textures are made on first use and cached.

    Fronts are cut from `photos`, images of facades seen head-on, or painted if there are none.
    `surfaces` are all surfaces, `facades` the building fronts, which come first among them. Half of the `streets`
    (rounded up) run north-south, the others east-west.

    Raises:
        BadInputError: if the seed is negative or there is no street.
    """

    def __init__(self, seed: int = 0, streets: int = 4, photos: Sequence[Path] = ()) -> None:
        if seed < 0 or streets < 1:
            raise BadInputError(f"a town needs seed >= 0 and at least one street, found seed={seed}, streets={streets}")
        self.seed = seed
        layout = lay_out(np.random.default_rng([seed, 0]), streets)
        self.streets: tuple[Street, ...] = layout.streets
        self.surfaces: tuple[Facade, ...] = layout.surfaces
        self.facades: tuple[Facade, ...] = tuple(
            facade for facade in layout.surfaces if isinstance(facade.plan, FrontPlan)
        )
        self._scene = Scene.of(layout)
        self._textures = Textures(seed, photos)

    def render(self, camera: Camera, appearance: Appearance = NEUTRAL) -> Image:
        """Draw the view of a camera: RGB, (height_px, width_px, 3)."""
        view = View(self._scene, camera)
        image = paint_sky(view, appearance.sky_seed)
        paint_surfaces(view, image, self._textures, appearance)
        days_rng = np.random.default_rng([self.seed, 5, appearance.occluder_seed])
        paint_occluders(view, image, scatter(self.streets, self._models, appearance.occluders_per_10_m, days_rng))
        small = cv2.resize(image, (camera.width_px, camera.height_px), interpolation=cv2.INTER_AREA)
        return apply_light(small, appearance)

    def homography(self, camera_a: Camera, camera_b: Camera, facade: Facade) -> Matrix:
        """Exact homography from A's pixels to B's pixels for the facade's plane; float64 with H[2, 2] = 1.

        It holds for pixels of A that show the facade (see `facade_map`), and has no meaning where the plane is behind a
        camera. Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 13.1.

        Raises:
            BadInputError: if a camera sees the plane edge-on, or if pixel (0, 0) of A has no finite image in B.
        """
        plane_to_image = []
        for name, camera in (("A", camera_a), ("B", camera_b)):
            distance_m = float(facade.normal @ (camera.centre_m - facade.origin_m))
            if abs(distance_m) < 1e-3:
                raise BadInputError(
                    f"camera {name} sees facade {facade.index} edge-on: it is {distance_m:.1e} m from its plane, "
                    "expected at least 1e-3 m; choose another facade or move the camera"
                )
            plane_to_image.append(camera.projection @ facade.plane_to_world)
        homography = plane_to_image[1] @ np.linalg.inv(plane_to_image[0])
        if abs(homography[2, 2]) < 1e-12 * np.abs(homography).max():
            raise BadInputError(f"pixel (0, 0) of camera A has no finite image in camera B on facade {facade.index}")
        return homography / homography[2, 2]

    def facade_map(self, camera: Camera) -> Int32[np.ndarray, "height width"]:
        """Index in `facades` of the front at each pixel, -1 for anything else and at edges."""
        fine = View(self._scene, camera).surface_map()
        shown = fine[::2, ::2]
        same = (shown == fine[1::2, ::2]) & (shown == fine[::2, 1::2]) & (shown == fine[1::2, 1::2])
        return np.where(same & (shown < len(self.facades)), shown, np.int32(-1))

    def visible_facades(self, camera: Camera) -> list[Facade]:
        """List the building fronts in view, largest visible image area first."""
        shown = self.facade_map(camera)
        areas_px = np.bincount(shown[shown >= 0], minlength=len(self.facades))
        order = np.argsort(-areas_px, kind="stable")
        return [self.facades[index] for index in order[: np.count_nonzero(areas_px)]]

    def texture(self, facade: Facade) -> Image:
        """Full-resolution texture of a surface: the first row is the top, the first column the left end."""
        return self._textures.get(facade)

    def database_cameras(
        self, spacing_m: float = 20.0, relative_headings_deg: Sequence[float] = (0.0, 75.0, 180.0, 255.0)
    ) -> list[Camera]:
        """Make cameras along the middle of every street, with headings relative to the street's at each stop.

        Raises:
            BadInputError: if spacing_m is not positive.
        """
        if not spacing_m > 0:
            raise BadInputError(f"spacing_m must be positive, found {spacing_m}")
        rng = np.random.default_rng([self.seed, 1])
        cameras = []
        for street in self.streets:
            for along_m in np.arange(street.start_m + 12, street.end_m - 12, spacing_m).tolist():
                x_m, y_m = street.point(along_m + rng.uniform(-1, 1), rng.uniform(-1, 1))
                for turn_deg in relative_headings_deg:
                    heading_deg = round((street.heading_deg + turn_deg) % 360, 2)
                    cameras.append(Camera(round(x_m, 2), round(y_m, 2), 1.8, heading_deg, pitch_deg=7.0))
        return cameras

    def query_cameras(
        self, count: int, seed: int = 0, database: Sequence[Camera] | None = None, max_shift_m: float = 3.0
    ) -> list[Camera]:
        """Make cameras near database cameras: moved by up to max_shift_m, turned by 10 to 20 degrees to either side.

        Every query has a database image within max_shift_m. `database` defaults to `database_cameras()`.
        """
        known = list(self.database_cameras() if database is None else database)
        rng = np.random.default_rng([self.seed, 2, seed])
        chosen = np.concatenate([rng.permutation(len(known)) for _ in range(count // len(known) + 1)])[:count]
        return [_displaced(known[index], max_shift_m, rng) for index in chosen]

    @cached_property
    def _models(self) -> list[Model]:
        return make_models(np.random.default_rng([self.seed, 4]))


def write_town(
    folder: StrPath,
    town: SyntheticTown,
    database_cameras: Sequence[Camera],
    query_cameras: Sequence[Camera],
    *,
    seed: int = 0,
    progress: Progress = lambda _images: None,
) -> TownLayout:
    """Render a data set to folder/images/test/{database,queries}: neutral database views, queries in other lighting.

    File names follow the standard layout `@utm_east@utm_north@zone@letter@latitude@longitude@place@tile@heading@pitch@
    roll@height@timestamp@note@.jpg`, positions with two decimals, offset to UTM_ORIGIN_M. `progress` is called with
    the number of images just written.

    Raises:
        DatasetError: if either folder already holds files.
        OSError: if an image cannot be written.
    """
    folder = Path(folder)
    rng = np.random.default_rng([town.seed, 6, seed])
    days = [Appearance.sample(rng) for _ in query_cameras]
    database, queries = (_empty_folder(folder / "images" / "test" / part) for part in ("database", "queries"))
    neutral = [NEUTRAL] * len(database_cameras)
    return TownLayout(
        folder=folder,
        database_paths=_write_views(database, town, database_cameras, neutral, progress),
        database_cameras=tuple(database_cameras),
        query_paths=_write_views(queries, town, query_cameras, days, progress),
        query_cameras=tuple(query_cameras),
    )


def image_name(camera: Camera, place: str) -> str:
    """File name of a view in the standard layout; latitude, longitude and unknown fields are empty."""
    east_m, north_m = UTM_ORIGIN_M[0] + camera.x_m, UTM_ORIGIN_M[1] + camera.y_m
    position = f"@{east_m:.2f}@{north_m:.2f}@{UTM_ZONE[0]}@{UTM_ZONE[1]}@@"
    return f"{position}@{place}@@{camera.heading_deg % 360:.2f}@{camera.pitch_deg:.2f}@@{camera.height_m:.2f}@@@.jpg"


def _empty_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DatasetError(f"{folder} already holds files; expected an empty or a new folder")
    return folder


def _write_views(
    folder: Path,
    town: SyntheticTown,
    cameras: Sequence[Camera],
    appearances: Sequence[Appearance],
    progress: Progress,
) -> tuple[Path, ...]:
    paths = []
    for number, (camera, appearance) in enumerate(zip(cameras, appearances, strict=True)):
        path = folder / image_name(camera, f"{folder.name}{number:05d}")
        pixels = cv2.cvtColor(town.render(camera, appearance), cv2.COLOR_RGB2BGR)
        path.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())
        paths.append(path)
        progress(1)
    return tuple(paths)


def _displaced(camera: Camera, max_shift_m: float, rng: np.random.Generator) -> Camera:
    shift_m, towards = max_shift_m * math.sqrt(rng.uniform(0.03, 1)), rng.uniform(0, 2 * math.pi)
    turn_deg = rng.uniform(10, 20) * rng.choice([-1, 1])
    return replace(
        camera,
        x_m=round(camera.x_m + 0.99 * shift_m * math.cos(towards), 2),
        y_m=round(camera.y_m + 0.99 * shift_m * math.sin(towards), 2),
        height_m=round(camera.height_m + rng.uniform(-0.3, 0.3), 2),
        heading_deg=round((camera.heading_deg + turn_deg) % 360, 2),
        pitch_deg=round(camera.pitch_deg + rng.uniform(-2, 2), 2),
    )
