"""Panoramas: views are what a camera in the middle would see, and are indexed like photos of it."""

import os

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.images.decoding import decode_image, decode_reduced
from vpr_dhe.images.listing import scan_images
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.panoramas import cut_view
from vpr_dhe.images.view_names import file_of, split_view, view_of, yaws_deg
from vpr_dhe.index.missing_images import MissingImages, find_missing
from vpr_dhe.index.panorama_views import with_views
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import GeoPosition, ImageRecord, Size
from vpr_dhe.service.add_images import NewImage, add_images

WIDTH = 1536


def seen(direction: np.ndarray) -> np.ndarray:
    """Colours of a world that depends on the direction alone: unit vectors, east, up, north."""
    return np.rint(127.5 + 120 * np.sin(3 * direction + np.array([0.3, 1.1, 2.0]))).astype(np.uint8)


@pytest.fixture(scope="module")
def panorama() -> np.ndarray:
    longitude = np.radians((np.arange(WIDTH) + 0.5) / WIDTH * 360 - 180)
    latitude = np.radians(90 - (np.arange(WIDTH // 2) + 0.5) / (WIDTH // 2) * 180)[:, None]
    up = np.broadcast_to(np.sin(latitude), (WIDTH // 2, WIDTH))
    return seen(np.stack([np.cos(latitude) * np.sin(longitude), up, np.cos(latitude) * np.cos(longitude)], axis=-1))


@pytest.mark.parametrize("yaw_deg", [0, 30, 150, 180, 210, 330])
def test_a_view_is_what_a_pinhole_camera_sees(panorama, yaw_deg):
    view = cut_view(panorama, yaw_deg)
    assert image_size(view) == Size(WIDTH // 6, WIDTH // 8)
    width, height = image_size(view)
    focal = width / 2 / np.tan(np.radians(30))
    x, y = np.meshgrid((np.arange(width) - (width - 1) / 2) / focal, (np.arange(height) - (height - 1) / 2) / focal)
    yaw = np.radians(yaw_deg)
    rays = np.stack([x * np.cos(yaw) + np.sin(yaw), -y, np.cos(yaw) - x * np.sin(yaw)], axis=-1)
    expected = seen(rays / np.linalg.norm(rays, axis=-1, keepdims=True))
    assert np.abs(view.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_views_are_read_by_their_paths(panorama, tmp_path, ending):
    path = tmp_path / f"pano.{ending}"
    PIL.Image.fromarray(panorama).save(path, quality=98)
    view = tmp_path / f"pano.{ending}#030"
    whole = decode_image(view)
    assert np.abs(whole.astype(int) - cut_view(panorama, 30)).mean() < 2
    for reduced in (decode_reduced(view, Size(16, 16)), decode_reduced(path.read_bytes(), Size(16, 16), yaw_deg=30)):
        assert reduced.original_size == image_size(whole)
        assert min(image_size(reduced.image)) >= 32
    with pytest.raises(ImageError, match="does not exist"):
        decode_image(tmp_path / "other.jpg#030")
    PIL.Image.fromarray(panorama[:600]).save(path)
    with pytest.raises(ImageError, match="expected a panorama with an aspect ratio of 2:1"):
        decode_image(view)


def test_names_of_views_are_not_those_of_files(tmp_path):
    assert split_view("a/b#c.jpg#345") == ("a/b#c.jpg", 345)
    assert split_view("a.jpg") is split_view("a.jpg#360") is split_view("a.jpg#30") is split_view("#030") is None
    (tmp_path / "scan#001").touch()
    assert view_of(tmp_path / "scan#001") is None
    assert file_of(tmp_path / "scan#001") == tmp_path / "scan#001"
    assert yaws_deg(12) == list(range(0, 360, 30))
    assert yaws_deg(7) == [0, 51, 103, 154, 206, 257, 309]
    with pytest.raises(BadInputError, match="expected 6 to 72"):
        yaws_deg(5)


def test_views_are_indexed_with_position_and_heading(panorama, photo_folder, tmp_path, thumbnail_extractor):
    PIL.Image.fromarray(panorama).save(photo_folder / "pano.png")
    records = [ImageRecord("00.png", None), ImageRecord("pano.png", GeoPosition(49.0, 7.0), 350.0)]
    expanded, panoramas = with_views(records, photo_folder.joinpath, 12)
    assert (panoramas, len(expanded), expanded[2].path) == (1, 13, "pano.png#030")
    assert [record.heading_deg for record in expanded[1:4]] == [350, 20, 50]
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, panorama_views=12)
    assert index.add(expanded, thumbnail_extractor).added == 13
    assert index.duplicates() == []
    assert index.image(2) == ImageRecord("pano.png#030", GeoPosition(49.0, 7.0), 20.0)
    assert index.frame(2).image_size == Size(256, 192)
    features = thumbnail_extractor.extract([decode_image(index.image_path(2))])[0]
    found = index.search(features.global_descriptor[None], 1)
    assert (found.ids.item(), found.similarities.item()) == (2, pytest.approx(1, abs=1e-4))
    # A copy with another time is unchanged, and other content is another panorama.
    content = (photo_folder / "pano.png").read_bytes()
    (photo_folder / "pano.png").write_bytes(content)
    assert index.add(expanded, thumbnail_extractor).unchanged == 13
    PIL.Image.fromarray(panorama[::-1]).save(photo_folder / "pano.png")
    assert index.add(expanded, thumbnail_extractor).replaced == 12
    assert PlaceIndex.open(index.folder).manifest.panorama_views == 12


def test_headings_of_photo_spheres_are_turned(panorama, photo_folder, tmp_path, thumbnail_extractor):
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:PoseHeadingDegrees="100"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    PIL.Image.fromarray(panorama).save(photo_folder / "pano.jpg", xmp=xmp)
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add([ImageRecord("pano.jpg#000"), ImageRecord("pano.jpg#270")], thumbnail_extractor)
    assert [index.image(id).heading_deg for id in (0, 1)] == [100, 10]


def test_views_follow_their_panoramas(panorama, tmp_path, thumbnail_extractor):
    photos, moved = tmp_path / "photos", tmp_path / "moved"
    photos.mkdir()
    PIL.Image.fromarray(panorama).save(photos / "pano.png")
    expanded, _ = with_views([ImageRecord("pano.png")], photos.joinpath, 6)
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photos, codec="float16", panorama_views=6)
    index.add(expanded, thumbnail_extractor)
    photos.rename(moved)
    index.move_images(moved)
    assert index.manifest.folders.main == str(moved)
    other = PlaceIndex.create(tmp_path / "other", thumbnail_extractor.spec, moved, codec="float16")
    with pytest.raises(
        BadInputError, match=r"takes no views of a panorama, and .* takes 6; index the photos of one again"
    ):
        other.merge(index)

    # A panorama that cannot be read now is not gone.
    content = (moved / "pano.png").read_bytes()
    (moved / "pano.png").write_bytes(b"half a copy")
    unread, _ = with_views([ImageRecord("pano.png")], moved.joinpath, 6)
    missing = find_missing(index, unread, scan_images(moved))
    assert (len(missing.gone), len(missing.unreadable)) == (0, 6)
    (moved / "pano.png").write_bytes(content)
    (moved / "pano.png").rename(moved / "other.png")
    renamed, _ = with_views([ImageRecord("other.png")], moved.joinpath, 6)
    assert len(find_missing(index, renamed, scan_images(moved)).gone) == 6


def test_the_name_of_a_panorama_stands_for_its_views(panorama, tmp_path, thumbnail_extractor):
    PIL.Image.fromarray(panorama).save(tmp_path / "pano.png")
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, tmp_path, codec="float16", panorama_views=6)
    index.add(with_views([ImageRecord("pano.png")], tmp_path.joinpath, 6)[0], thumbnail_extractor)
    assert index.ids_of(["pano.png"]) == list(range(6))
    assert index.ids_of(["pano.png#060"]) == [1]
    with pytest.raises(BadInputError, match="holds no image other"):
        index.ids_of(["other.png"])


def test_a_new_time_of_a_panorama_is_that_of_all_its_views(panorama, tmp_path, thumbnail_extractor):
    PIL.Image.fromarray(panorama).save(tmp_path / "pano.png")
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, tmp_path, codec="float16", panorama_views=6)
    records = with_views([ImageRecord("pano.png")], tmp_path.joinpath, 6)[0]
    index.add(records, thumbnail_extractor)
    os.utime(tmp_path / "pano.png", ns=(1, 1))
    assert index.add(records, thumbnail_extractor).unchanged == 6
    assert {index.snapshot.stamp(id).modified_ns for id in index.ids.tolist()} == {1}


def test_a_panorama_that_a_service_gets_is_added_in_views(panorama, tmp_path, thumbnail_extractor):
    PIL.Image.fromarray(panorama).save(tmp_path / "sent.png")
    photos = tmp_path / "photos"
    photos.mkdir()
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photos, codec="float16", panorama_views=6)
    added = add_images(index, thumbnail_extractor, [NewImage("day/pano.png", (tmp_path / "sent.png").read_bytes())])
    assert list(added.ids) == [f"day/pano.png#{yaw:03d}" for yaw in range(0, 360, 60)]
    records, _ = with_views([ImageRecord("day/pano.png")], photos.joinpath, 6)
    assert find_missing(index, records, scan_images(photos)) == MissingImages()
