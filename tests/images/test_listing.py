"""Folders as users have them: photos of any ending, and parts that cannot be listed."""

import errno
import os
import sys
from pathlib import Path

import PIL.ExifTags
import PIL.Image
import pytest

from vpr_dhe.errors import BadInputError, ListingError
from vpr_dhe.images import formats
from vpr_dhe.images.formats import EXTENSIONS, is_heic, reads_heic
from vpr_dhe.images.listing import list_images, scan_images, survey_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 400
AVIF_OF_IMAGES = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + b"\0" * 400
# What Pillow opens, but without pixels to decode, by running another program, or as measurements of unknown range.
NOT_PHOTOS = frozenset(
    {".bufr", ".emf", ".eps", ".fit", ".fits", ".grib", ".h5", ".hdf", ".iim", ".mpeg", ".mpg"}
    | {".pcd", ".pfm", ".ps", ".wmf"}
)


@pytest.fixture
def without_heic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    reads_heic.cache_clear()
    yield
    reads_heic.cache_clear()


def write(folder: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_bytes(content)


def refuse_to_list(monkeypatch, *folders: Path) -> None:
    """Make folders unreadable, for a superuser too."""
    scandir = os.scandir

    def refusing(path="."):
        if Path(path) in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_all_formats_of_pillow_are_listed():
    PIL.Image.init()
    opened = {ending for ending, kind in PIL.Image.registered_extensions().items() if kind in PIL.Image.OPEN}
    heic = {".heic", ".heif", ".heics", ".heifs", ".hif"}  # once pillow-heif has registered itself
    assert opened - EXTENSIONS - heic == opened & NOT_PHOTOS
    assert not EXTENSIONS & NOT_PHOTOS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF", "QOI", "DDS"])
@pytest.mark.parametrize("name", ["photo", "Photo 2024-05-01 12.30.15"])
def test_names_without_an_ending_are_told_by_their_first_bytes(kind, name, tmp_path):
    PIL.Image.new("RGB", (20, 20)).save(tmp_path / name, format=kind)
    (tmp_path / "LICENSE").write_text("Permission is granted")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    listing = scan_images(tmp_path)
    assert (listing.paths, listing.left_out, listing.unreadable) == ((name,), (), ())


def test_files_with_an_ending_are_not_opened(tmp_path, monkeypatch):
    write(tmp_path, a__jpg=b"", b__jfif=b"", c__AVIF=b"", d__mov=b"", e__txt=b"")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    listing = scan_images(tmp_path)
    assert (listing.paths, listing.left_out) == (("a.jpg", "b.jfif", "c.AVIF"), ("d.mov",))


def test_photos_that_cannot_be_read_are_counted(tmp_path, without_heic):
    write(tmp_path, a__jpg=b"", b__HEIC=HEIC, c__heic=HEIC, d=HEIC, e__cr2=b"", f__csv=b"", Thumbs__db=b"")
    listing = scan_images(tmp_path)
    assert listing.left_out == ("b.HEIC", "c.heic", "d", "e.cr2")
    assert listing.left_out_text == (
        "left out 2 .heic, 1 without an ending, 1 .cr2, such as b.HEIC; to read HEIC, install pillow-heif with: pip "
        'install "vpr-dhe[heic]"'
    )
    assert listing.may_hold("b.HEIC")
    assert not listing.may_hold("gone.jpg")
    (tmp_path / "b.HEIC").unlink()
    (tmp_path / "c.heic").unlink()
    (tmp_path / "d").unlink()
    assert scan_images(tmp_path).left_out_text == "left out 1 .cr2, such as e.cr2"


def test_heic_is_listed_if_it_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "reads_heic", lambda: True)
    write(tmp_path, a__HEIC=HEIC, b=HEIC, c__hif=HEIC)
    assert scan_images(tmp_path).paths == ("a.HEIC", "b", "c.hif")


def test_heic_and_avif_are_told_apart():
    assert is_heic(HEIC)
    assert is_heic(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
    assert not is_heic(AVIF_OF_IMAGES)
    assert not is_heic(b"")


def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch):
    for folder in ("day-1", "day-2", "day-2-more"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, a__jpg=b"")
    refuse_to_list(monkeypatch, tmp_path / "day-2")
    listing = scan_images(tmp_path)
    assert listing.paths == ("day-1/a.jpg", "day-2-more/a.jpg")
    assert listing.unreadable_text == f"{tmp_path / 'day-2'} cannot be listed (Permission denied)"
    assert [listing.may_hold(path) for path in ("day-2/a.jpg", "day-2/x/a.jpg", "day-2-more/b.jpg")] == [1, 1, 0]
    with pytest.raises(ListingError, match="day-2 cannot be listed"):
        listing.require_complete()


def test_links_to_nowhere_may_hold_images(tmp_path):
    write(tmp_path, a__jpg=b"")
    (tmp_path / "drive").symlink_to(tmp_path / "unplugged")
    (tmp_path / "to-itself").symlink_to(tmp_path / "to-itself")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "no-notes.txt")
    listing = scan_images(tmp_path)
    assert [entry.path for entry in listing.unreadable] == ["drive", "to-itself"]
    assert listing.unreadable[0].reason == f"a link to {tmp_path / 'unplugged'}, which does not exist"
    assert listing.unreadable_text.endswith(", and 1 more")


def test_listing_is_sorted_recursive_and_ignores_what_is_hidden(picture, tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.jpeg", ".hidden/d.png", "sub/.e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name, format="png")
    (tmp_path / "notes.txt").write_text("no image")
    assert list_images(tmp_path) == ["a.png", "b.JPG", "sub/c.jpeg"]


def test_listing_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        list_images(tmp_path / "none")
    with pytest.raises(BadInputError, match="holds no images"):
        list_images(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="is a file"):
        list_images(tmp_path / "file")


def test_listing_warns_of_photos_left_out(picture, tmp_path, caplog):
    picture.save(tmp_path / "a.png")
    (tmp_path / "a.cr2").touch()
    assert list_images(tmp_path) == ["a.png"]
    assert caplog.messages == [f"{tmp_path}: left out 1 .cr2, such as a.cr2"]


def test_listing_half_a_folder_is_an_error(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    (tmp_path / "drive").symlink_to(tmp_path / "unplugged")
    with pytest.raises(ListingError, match="drive cannot be listed"):
        list_images(tmp_path)
    assert survey_images(tmp_path).paths == ("a.png",)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ListingError, match="drive cannot be listed"):
        survey_images(tmp_path)


def test_links_to_folders_are_followed_once(picture, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    picture.save(tmp_path / "elsewhere" / "a.png")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert list_images(folder) == ["link/a.png"]


def test_a_link_to_a_folder_renames_no_image(tmp_path):
    (tmp_path / "run-1").mkdir()
    write(tmp_path / "run-1", a__jpg=b"a")
    (tmp_path / "latest").symlink_to("run-1")
    assert list_images(tmp_path) == ["run-1/a.jpg"]
    (tmp_path / "elsewhere").mkdir()
    photos = tmp_path / "photos"
    photos.mkdir()
    write(tmp_path / "elsewhere", b__jpg=b"b")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    assert list_images(photos) == ["link/b.jpg"]
