"""A miniature of GSV-Cities: names, folders and tables as published."""

import csv
from pathlib import Path

import numpy as np
import PIL.Image

CITIES = {"Boston": 3, "OSL": 3}
_COLUMNS = ("place_id", "year", "month", "northdeg", "city_id", "lat", "lon", "panoid")


def write_gsv_cities(folder: Path, images_per_place: int = 4, side: int = 32) -> Path:
    """Write two cities of three places, each of one colour, and a place with one photo fewer than the others."""
    random = np.random.default_rng(0)
    for city, places in CITIES.items():
        rows = []
        for place in range(places + 1):
            colour = random.integers(0, 200, 3)
            for number in range(images_per_place - (place == places)):
                row = (place, 2010 + number, 6, 121, city, 42.37 + place / 100, -71.069021, f"2My_{place}{number}-Q")
                rows.append(row)
                pixels = colour + random.integers(0, 56, (side, side, 3))
                path = folder / "Images" / city / _name(*row)
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(path)
        table = folder / "Dataframes" / f"{city}.csv"
        table.parent.mkdir(exist_ok=True)
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
    return folder


def _name(place, year, month, bearing, city, latitude, longitude, panorama) -> str:
    # Half of the published names end in capitals.
    ending = "JPG" if year % 2 else "jpg"
    return f"{city}_{place:07d}_{year}_{month:02d}_{bearing:03d}_{latitude}_{longitude}_{panorama}.{ending}"
