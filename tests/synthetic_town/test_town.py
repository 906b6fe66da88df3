"""The synthetic town: the same from the same seed, and exact in its geometry."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.synthetic_town.town import (
    UTM_ORIGIN_M,
    Appearance,
    Camera,
    Facade,
    SyntheticTown,
    write_town,
)


@pytest.fixture(scope="module")
def town() -> SyntheticTown:
    return SyntheticTown(seed=3, streets=3)


def facing_pair(town: SyntheticTown) -> tuple[Camera, Camera, Facade]:
    """Two cameras in a street that see one front, from the left and from the right of it."""
    street = town.streets[0]
    x_m, y_m = street.point(street.start_m + 15, 0.0)
    camera_a = Camera(x_m - 2, y_m - 2, 1.7, 80.0, 8.0)
    camera_b = Camera(x_m - 1, y_m + 2, 2.1, 100.0, 5.0)
    return camera_a, camera_b, town.visible_facades(camera_a)[0]


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of world points, written out without the projection matrix under test."""
    heading, pitch = np.deg2rad(camera.heading_deg), np.deg2rad(camera.pitch_deg)
    offset = points - (camera.x_m, camera.y_m, camera.height_m)
    level = offset[:, 0] * np.sin(heading) + offset[:, 1] * np.cos(heading)
    right = offset[:, 0] * np.cos(heading) - offset[:, 1] * np.sin(heading)
    depth = level * np.cos(pitch) + offset[:, 2] * np.sin(pitch)
    down = level * np.sin(pitch) - offset[:, 2] * np.cos(pitch)
    x = camera.focal_px * right / depth + (camera.width_px - 1) / 2
    y = camera.focal_px * down / depth + (camera.height_px - 1) / 2
    return np.stack([x, y], axis=1), depth


def transfer(homography: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    mapped = np.column_stack([pixels, np.ones(len(pixels))]) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_town() -> None:
    camera, appearance = Camera(0.0, 0.0, 1.7, 30.0, 5.0), Appearance.sample(np.random.default_rng(4))
    first = SyntheticTown(seed=1)
    # The order of views must not matter, although textures are painted when first seen.
    first.render(Camera(2.0, 3.0, 1.7, 200.0))
    image = first.render(camera, appearance)
    assert image.tobytes() == SyntheticTown(seed=1).render(camera, appearance).tobytes()
    assert np.abs(image.astype(int) - SyntheticTown(seed=2).render(camera, appearance)).mean() > 5
    assert first.database_cameras() == SyntheticTown(seed=1).database_cameras()
    assert first.query_cameras(9, 5) == SyntheticTown(seed=1).query_cameras(9, 5)
    assert first.query_cameras(9, 5) != first.query_cameras(9, 6)


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(town: SyntheticTown) -> None:
    program = (
        "import hashlib; from vpr_dhe.synthetic_town.town import *; t = SyntheticTown(3, 3);"
        "image = t.render(Camera(1.0, 2.0, 1.7, 60.0, 0.0, 80, 60, 58.0), Appearance(occluders_per_10_m=1.0));"
        "print(hashlib.sha256(image.tobytes()).hexdigest())"
    )
    expected = town.render(Camera(1.0, 2.0, 1.7, 60.0, 0.0, 80, 60, 58.0), Appearance(occluders_per_10_m=1.0))
    assert expected.std() > 5
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert answer.stdout.strip() == hashlib.sha256(expected.tobytes()).hexdigest()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("streets", [1, 2, 4, 5])
def test_towns_of_every_size_can_be_built_and_seen(seed: int, streets: int) -> None:
    small = SyntheticTown(seed, streets)
    assert len(small.streets) == streets
    camera = small.database_cameras(spacing_m=40.0)[1]
    assert small.render(replace(camera, width_px=64, height_px=48, focal_px=46.0)).std() > 5
    assert small.visible_facades(camera)


def test_bad_arguments_are_refused() -> None:
    for arguments in ({"seed": -1}, {"streets": 0}):
        with pytest.raises(BadInputError, match="needs seed >= 0"):
            SyntheticTown(**arguments)
    with pytest.raises(BadInputError, match="positive size"):
        Camera(0.0, 0.0, focal_px=0.0)
    with pytest.raises(BadInputError, match="finite"):
        Camera(float("nan"), 0.0)


def test_camera_looks_where_its_heading_says() -> None:
    # A camera that looks east sees what is ahead in its middle, what is south of it on its right, what is up above.
    camera = Camera(10.0, 20.0, 2.0, heading_deg=90.0)
    pixels, _ = project(camera, np.array([[30.0, 20, 2], [30, 15, 2], [30, 20, 7]]))
    assert pixels[0] == pytest.approx([159.5, 119.5])
    assert pixels[1, 0] > 159.5
    assert pixels[2, 1] < 119.5
    world = np.array([[30.0, 17, 3, 1]])
    mapped = world @ camera.projection.T
    assert mapped[0, :2] / mapped[0, 2] == pytest.approx(project(camera, world[:, :3])[0][0])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_homography_agrees_with_projected_points(town: SyntheticTown, data: st.DataObject) -> None:
    facade = data.draw(st.sampled_from(town.facades))
    number = st.floats(-1, 1)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    plane_m = rng.uniform(0, 1, (20, 2)) * (facade.width_m, facade.height_m)
    points = facade.points(plane_m)
    middle = facade.points(np.array([[facade.width_m / 2, 0]]))[0]
    cameras = []
    for _ in range(2):
        away_m, aside_m = 8 + 3 * data.draw(number), 4 * data.draw(number)
        spot = middle + away_m * facade.normal + aside_m * facade.right
        facing_deg = np.rad2deg(np.arctan2(-facade.normal[0], -facade.normal[1]))
        heading_deg, pitch_deg = facing_deg + 25 * data.draw(number), 15 * data.draw(number)
        cameras.append(Camera(spot[0], spot[1], 1.7 + data.draw(number), heading_deg, pitch_deg))
    pixels_a, depth_a = project(cameras[0], points)
    pixels_b, depth_b = project(cameras[1], points)
    seen = (depth_a > 1) & (depth_b > 1)
    homography = town.homography(*cameras, facade)
    assert homography.dtype == np.float64
    assert homography.shape == (3, 3)
    assert homography[2, 2] == 1.0
    assert np.abs(transfer(homography, pixels_a[seen]) - pixels_b[seen]).max(initial=0) < 1e-6


def test_homographies_compose_and_the_same_camera_gives_the_identity(town: SyntheticTown) -> None:
    camera_a, camera_b, facade = facing_pair(town)
    camera_c = replace(camera_b, x_m=camera_b.x_m - 1.5, heading_deg=86.0)
    assert town.homography(camera_a, camera_a, facade) == pytest.approx(np.eye(3), abs=1e-9)
    chained = town.homography(camera_b, camera_c, facade) @ town.homography(camera_a, camera_b, facade)
    assert chained / chained[2, 2] == pytest.approx(town.homography(camera_a, camera_c, facade), abs=1e-8)


def test_a_plane_seen_edge_on_is_refused(town: SyntheticTown) -> None:
    camera_a, _, facade = facing_pair(town)
    spot = facade.origin_m + 15 * facade.right
    for cameras in ((camera_a, Camera(spot[0], spot[1])), (Camera(spot[0], spot[1]), camera_a)):
        with pytest.raises(BadInputError, match="edge-on"):
            town.homography(*cameras, facade)


def test_rendered_views_agree_with_the_homography(town: SyntheticTown) -> None:
    camera_a, camera_b, _ = facing_pair(town)
    image_a, image_b = town.render(camera_a), town.render(camera_b)
    map_a, map_b = town.facade_map(camera_a), town.facade_map(camera_b)
    compared = 0
    for facade in town.visible_facades(camera_a)[:3]:
        homography = town.homography(camera_a, camera_b, facade)
        size = (camera_b.width_px, camera_b.height_px)
        warped = cv2.warpPerspective(image_a, homography, size)
        inside = cv2.warpPerspective((map_a == facade.index).astype(np.uint8), homography, size)
        both = cv2.erode(inside & (map_b == facade.index), np.ones((5, 5), np.uint8)) > 0
        if both.sum() < 500:
            continue
        compared += 1
        difference = np.abs(warped.astype(int) - image_b)[both].mean()
        # Two pixels of error in the map must show, or this test would prove nothing.
        shifted = np.abs(np.roll(warped, 2, axis=1).astype(int) - image_b)[both].mean()
        assert difference < 6.0
        assert difference < 0.5 * shifted
    assert compared > 0


def test_texture_pixels_land_where_the_projection_says(town: SyntheticTown) -> None:
    camera, _, facade = facing_pair(town)
    texture, image = town.texture(facade), town.render(camera, Appearance(sun_strength=0.0))
    ys, xs = np.nonzero(cv2.erode((town.facade_map(camera) == facade.index).astype(np.uint8), np.ones((7, 7))))
    plane_to_image = camera.projection @ facade.plane_to_world
    plane_m = transfer(np.linalg.inv(plane_to_image), np.stack([xs, ys], axis=1).astype(float))
    texture_x = (plane_m[:, 0] * texture.shape[1] / facade.width_m - 0.5).astype(np.float32)
    texture_y = ((facade.height_m - plane_m[:, 1]) * texture.shape[0] / facade.height_m - 0.5).astype(np.float32)
    smooth = cv2.GaussianBlur(texture, (0, 0), 1.0)
    expected = cv2.remap(smooth, texture_x[:, None], texture_y[:, None], cv2.INTER_LINEAR)[:, 0]
    assert np.abs(expected.astype(int) - image[ys, xs]).mean() < 8


def test_nearer_fronts_hide_farther_ones(town: SyntheticTown) -> None:
    """The painter's order, checked by casting rays at the surfaces one by one."""
    rng = np.random.default_rng(0)
    for camera in town.query_cameras(12, seed=1):
        shown = town.facade_map(camera)
        ys, xs = rng.integers(0, camera.height_px, 40), rng.integers(0, camera.width_px, 40)
        rays = np.stack([xs, ys, np.ones(40)], axis=1) @ (camera.rotation.T @ np.linalg.inv(camera.intrinsics)).T
        nearest, winner = np.full(40, np.inf), np.full(40, -1)
        for surface in town.surfaces:
            towards = rays @ surface.normal
            with np.errstate(divide="ignore", invalid="ignore"):
                depth = surface.normal @ (surface.origin_m - camera.centre_m) / towards
                hit = camera.centre_m + depth[:, None] * rays - surface.origin_m
            plane_m = np.stack([hit @ surface.right, hit @ surface.up], axis=1)
            edges = np.roll(surface.outline_m, -1, axis=0) - surface.outline_m
            offsets = plane_m[:, None] - surface.outline_m
            inside = (edges[:, 0] * offsets[:, :, 1] - edges[:, 1] * offsets[:, :, 0] >= 0).all(axis=1)
            better = (towards < 0) & (depth > 0.1) & inside & (depth < nearest)
            nearest[better], winner[better] = depth[better], surface.index
        decided = shown[ys, xs] >= 0
        # A ray through the middle of a pixel may miss by a rounding what the filled polygons' edges cover.
        assert (shown[ys, xs] == winner)[decided].sum() >= decided.sum() - 1


@settings(max_examples=15, deadline=None)
@given(
    x_m=st.floats(-110, 110), y_m=st.floats(-110, 110), height_m=st.floats(0.05, 25), heading_deg=st.floats(-720, 720),
    pitch_deg=st.floats(-90, 90), width_px=st.integers(1, 80), height_px=st.integers(1, 60),
)  # fmt: skip
def test_any_camera_can_be_rendered(town: SyntheticTown, **numbers: float) -> None:
    camera = Camera(**numbers, focal_px=50.0)
    appearance = Appearance(occluders_per_10_m=1.0, noise_sigma=2.0)
    image = town.render(camera, appearance)
    assert image.shape == (camera.height_px, camera.width_px, 3)
    assert image.dtype == np.uint8
    shown = town.facade_map(camera)
    assert shown.shape == image.shape[:2]
    assert shown.min() >= -1
    assert shown.max() < len(town.facades)


@settings(max_examples=20, deadline=None)
@given(street=st.integers(0, 2), along=st.floats(0, 1), across=st.floats(-0.48, 0.48), heading_deg=st.floats(0, 360))
def test_views_in_the_streets_show_something(
    town: SyntheticTown, street: int, along: float, across: float, heading_deg: float
) -> None:
    road = town.streets[street]
    x_m, y_m = road.point(road.start_m + along * (road.end_m - road.start_m), across * road.width_m)
    image = town.render(Camera(x_m, y_m, 1.6, heading_deg, width_px=80, height_px=60, focal_px=58.0))
    assert image.std() > 4
    assert 20 < image.mean() < 240


def test_visible_facades_are_ordered_by_area(town: SyntheticTown) -> None:
    camera = facing_pair(town)[0]
    shown = town.facade_map(camera)
    areas = [int((shown == facade.index).sum()) for facade in town.visible_facades(camera)]
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] > 0
    assert sum(areas) == (shown >= 0).sum()


def test_light_and_occluders_change_the_picture_but_not_the_town(town: SyntheticTown) -> None:
    camera = town.database_cameras()[0]
    neutral = town.render(camera).astype(int)
    assert town.render(camera, Appearance(brightness=0.6)).mean() < 0.75 * neutral.mean()
    warm = town.render(camera, Appearance(colour_temperature_k=4000.0)).mean(axis=(0, 1))
    assert warm[0] / warm[2] > 1.15 * neutral[..., 0].mean() / neutral[..., 2].mean()
    crowded = town.render(camera, Appearance(occluders_per_10_m=4.0)).astype(int)
    changed = np.abs(crowded - neutral).max(axis=2) > 8
    assert 0.005 < changed.mean() < 0.9
    assert (town.render(camera) == neutral).all()


def test_every_query_has_a_database_image_nearby(town: SyntheticTown) -> None:
    database = town.database_cameras()
    for query in town.query_cameras(40, seed=2):
        near = [c for c in database if np.hypot(c.x_m - query.x_m, c.y_m - query.y_m) <= 3.0]
        turns_deg = [abs((c.heading_deg - query.heading_deg + 180) % 360 - 180) for c in near]
        assert near
        assert min(turns_deg) <= 20.01


def test_written_names_hold_the_positions(town: SyntheticTown, tmp_path: Path) -> None:
    database, queries = town.database_cameras()[:5], town.query_cameras(3)
    written: list[int] = []
    layout = write_town(tmp_path, town, database, queries, progress=written.append)
    assert sum(written) == 8
    for paths, cameras, part in (
        (layout.database_paths, database, "database"),
        (layout.query_paths, queries, "queries"),
    ):
        assert sorted((tmp_path / "images" / "test" / part).iterdir()) == sorted(paths)
        for path, camera in zip(paths, cameras, strict=True):
            fields = path.name.split("@")
            assert len(fields) == 16
            assert fields[-1] == ".jpg"
            assert float(fields[1]) - UTM_ORIGIN_M[0] == pytest.approx(camera.x_m, abs=0.006)
            assert float(fields[2]) - UTM_ORIGIN_M[1] == pytest.approx(camera.y_m, abs=0.006)
            assert float(fields[9]) == pytest.approx(camera.heading_deg, abs=0.006)
            assert cv2.imread(str(path)).shape == (240, 320, 3)
    first = cv2.imread(str(layout.database_paths[0]))[:, :, ::-1].astype(int)
    assert np.abs(first - town.render(database[0])).mean() < 6
    with pytest.raises(DatasetError, match="already holds files"):
        write_town(tmp_path, town, database, queries)


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_town_is_written_to_a_folder_given_as_text_or_as_a_path(
    town: SyntheticTown, tmp_path: Path, as_path: type[str] | type[Path]
) -> None:
    layout = write_town(as_path(tmp_path), town, town.database_cameras()[:1], [])
    assert layout.folder == tmp_path
    assert layout.database_paths[0].is_file()
