"""Names in lists and tables against the images that they mean, and those that they could be mistaken for."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.images.names import KnownNames, tidy_path

NFC, NFD = (unicodedata.normalize(form, "Café.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("./sub/b.jpg", "sub/b.jpg"),
        ("sub\\b.jpg", "sub/b.jpg"),
        (".\\sub\\b.jpg", "sub/b.jpg"),
        (NFC, NFD),
        (NFD, NFD),
        ("A.JPG", "a.jpg"),
        ("b.jpg", None),
        ("other/a.jpg", None),
    ],
)
def test_spellings_of_one_name(written, path):
    assert KnownNames(["a.jpg", "sub/b.jpg", NFD]).find(written) == path


def test_names_that_several_images_may_have_match_only_as_written():
    known = KnownNames(["a.jpg", "A.jpg", NFC, NFD, "back\\slash.jpg", "back/slash.jpg"])
    for exact in ("a.jpg", "A.jpg", NFC, NFD, "back\\slash.jpg"):
        assert known.find(exact) == exact
    assert known.find("A.JPG") is None


@pytest.mark.parametrize(
    "written",
    [
        "{folder}/{path}",
        "photos/{path}",
        "./photos/{path}",
        "data/photos/{path}",
        "D:\\me\\Photos\\{path}",
        "F:/x/{path}",
    ],
)
def test_a_folder_before_all_names(written, tmp_path):
    folder, paths = tmp_path / "photos", ["a.jpg", "sub/b.jpg"]
    folder.mkdir()
    assert KnownNames(paths).match([written.format(folder=folder, path=path) for path in paths], folder) == paths


def test_names_of_another_folder_match_nothing(tmp_path):
    folder, paths = tmp_path / "database", ["0.jpg", "1.jpg"]
    for other in (folder, tmp_path / "queries"):
        other.mkdir()
    of_queries = [f"queries/{path}" for path in paths]
    assert KnownNames(paths).match(of_queries, folder) == [None, None]
    assert KnownNames(paths).match([str(tmp_path / name) for name in of_queries], folder) == [None, None]
    # One table may be about several folders.
    both = [*of_queries, *(f"database/{path}" for path in paths)]
    assert KnownNames(paths).match(both, folder) == [None, None, *paths]
    # Without the folder's name, only a full correspondence counts.
    assert KnownNames(paths).match(of_queries) == paths
    assert KnownNames(paths).match(of_queries[:1]) == [None]
    assert KnownNames(paths).match(both) == [None] * 4


@given(st.lists(st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,2}", fullmatch=True), unique=True, min_size=1))
def test_names_as_written_always_match_themselves(paths):
    assert KnownNames(paths).match(paths) == paths
    assert [tidy_path(path.replace("/", "\\")) for path in paths] == paths
