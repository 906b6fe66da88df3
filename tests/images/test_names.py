"""Names in lists and tables against the images that they mean, and those that they could be mistaken for."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.images.names import KnownNames, match_names, tidy_path

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
    assert match_names([written.format(folder=folder, path=path) for path in paths], paths, folder) == paths


def test_names_of_another_folder_match_nothing(tmp_path):
    folder, paths = tmp_path / "database", ["0.jpg", "1.jpg"]
    for other in (folder, tmp_path / "queries"):
        other.mkdir()
    of_queries = [f"queries/{path}" for path in paths]
    assert match_names(of_queries, paths, folder) == [None, None]
    assert match_names([str(tmp_path / name) for name in of_queries], paths, folder) == [None, None]
    # One table may be about several folders.
    both = [*of_queries, *(f"database/{path}" for path in paths)]
    assert match_names(both, paths, folder) == [None, None, *paths]
    # Without the folder's name, only a full correspondence counts.
    assert match_names(of_queries, paths) == paths
    assert match_names(of_queries[:1], paths) == [None]
    assert match_names(both, paths) == [None] * 4


@given(st.lists(st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,2}", fullmatch=True), unique=True, min_size=1))
def test_names_as_written_always_match_themselves(paths):
    assert match_names(paths, paths) == paths
    assert [tidy_path(path.replace("/", "\\")) for path in paths] == paths
