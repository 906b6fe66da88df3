"""Reading of GSV-Cities, on a miniature."""

import pytest
from little_gsv_cities import CITIES, write_gsv_cities

from vpr_dhe.datasets.gsv_cities import is_gsv_cities, read_gsv_cities
from vpr_dhe.errors import BadInputError, DatasetError


@pytest.fixture
def root(tmp_path):
    return write_gsv_cities(tmp_path / "gsv-cities", side=4)


def test_places_are_those_with_enough_photos(root):
    assert is_gsv_cities(root)
    places = read_gsv_cities(root)
    assert [place.name for place in places] == [f"{city}/{n:07d}" for city in CITIES for n in range(CITIES[city])]
    assert {len(place.images) for place in places} == {4}
    for place in places:
        city, number = place.name.split("/")
        assert all(path.is_file() and path.name.startswith(f"{city}_{number}_") for path in place.images)
    assert len(read_gsv_cities(root, 3)) == len(places) + len(CITIES)
    with pytest.raises(DatasetError, match="none of the 8 places has 5 images; lower --images-per-place"):
        read_gsv_cities(root, 5)


def test_tables_are_not_needed(root):
    before = read_gsv_cities(root)
    for table in (root / "Dataframes").iterdir():
        table.unlink()
    assert is_gsv_cities(root)
    assert read_gsv_cities(root) == before


def test_other_photos_among_them_are_refused(root):
    photo = next((root / "Images/OSL").iterdir())
    photo.rename(photo.with_name("holiday.jpg"))
    with pytest.raises(DatasetError, match=r"Images/OSL/holiday\.jpg is not named like CITY_PLACE_YEAR"):
        read_gsv_cities(root)


def test_other_folders_are_not_recognised(root, photo_folder):
    assert not is_gsv_cities(photo_folder)
    assert not is_gsv_cities(root / "Images")
    assert not is_gsv_cities(root / "nothing")
    (root / "empty/Images/OSL").mkdir(parents=True)
    assert not is_gsv_cities(root / "empty")
    with pytest.raises(BadInputError):
        read_gsv_cities(root / "empty")
