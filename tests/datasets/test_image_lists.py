"""Lists of images as scripts and editors write them, and what a list says about its folder."""

from pathlib import Path

import PIL.Image
import pytest

from vpr_dhe.datasets.image_lists import read_image_list
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import DatasetError


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("0.jpg", "1.jpg", "2.jpg", "sub/3.jpg"):
        path = tmp_path / "map" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (20, 20)).save(path)
    return tmp_path / "map"


@pytest.mark.parametrize(
    "content",
    [
        b"sub/3.jpg\n0.jpg\n",
        b"\xef\xbb\xbfsub/3.jpg\r\n0.jpg\r\n",
        b"sub/3.jpg\r0.jpg",
        b"\n  ./sub/3.jpg \n\n0.jpg",
        b"sub\\3.jpg\r\n0.jpg\r\n",
        b'"sub/3.jpg"\n"0.jpg"\n',
        b"map/sub/3.jpg\nmap/0.jpg\n",
        b"C:\\data\\map\\sub\\3.jpg\r\nC:\\data\\map\\0.jpg\r\n",
        "sub/3.jpg\r\n0.jpg\r\n".encode("utf-16"),
    ],
)
def test_ways_to_write_one_list(photos, content):
    (photos.parent / "list.txt").write_bytes(content)
    listed = read_image_list(photos.parent / "list.txt", photos)
    assert listed.paths == ("sub/3.jpg", "0.jpg")
    assert (listed.missing, listed.left_out) == ((), ("1.jpg", "2.jpg"))


def test_absolute_paths_become_relative(photos):
    source = photos.parent / "list.txt"
    source.write_text(f"{photos}/1.jpg\n{photos}/sub/3.jpg\n")
    assert read_image_list(source, photos).paths == ("1.jpg", "sub/3.jpg")
    (photos.parent / "alias").symlink_to(photos)
    assert read_image_list(source, photos.parent / "alias").paths == ("1.jpg", "sub/3.jpg")


def test_a_list_says_what_it_leaves_out(photos, caplog):
    source = photos.parent / "map_images_paths.txt"
    source.write_text("0.jpg\n2.jpg\n")
    assert len(read_split(photos).records) == 2
    assert caplog.messages == [f"{source} is used: it lists 2 images, and leaves out 2 others, such as 1.jpg"]
    source.write_text("gone.jpg\n0.jpg\n1.jpg\n2.jpg\nsub/3.jpg\n")
    expected = "it lists 5 images, 1 of them missing, such as gone.jpg, and leaves out none"
    assert expected in read_image_list(source, photos).text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the split is empty: .* lists no images"),
        (b"\xef\xbb\xbf\r\n", "the split is empty"),
        (b"caf\xe9.jpg\n", "is not text in UTF-8"),
        (b"other/7.jpg\n", r"lists other/7\.jpg, which is not in"),
    ],
)
def test_lists_that_name_nothing(photos, content, message):
    (photos.parent / "list.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_image_list(photos.parent / "list.txt", photos)


def test_paths_inside_of_the_folder_alone_are_taken(photos):
    (photos / ".hidden").mkdir()
    (photos / ".hidden/4.jpg").write_bytes((photos / "0.jpg").read_bytes())
    source = photos.parent / "list.txt"
    source.write_text(f"{photos}/.hidden/4.jpg\nsub/../0.jpg\n")
    assert read_image_list(source, photos).paths == (".hidden/4.jpg", "0.jpg")
    (photos.parent / "other.jpg").write_bytes((photos / "0.jpg").read_bytes())
    for outside in (f"{photos.parent}/other.jpg", "../other.jpg"):
        source.write_text(f"0.jpg\n{outside}\n")
        with pytest.raises(DatasetError, match=r"lists .*other\.jpg, which is outside of"):
            read_image_list(source, photos)
