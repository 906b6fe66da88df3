"""Tables of positions: what they may look like, how rows find their images, and what is said of mistakes."""

import csv
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vpr_dhe.datasets.standard import record_of
from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.position_table import PlacedImages, Unmatched, read_positions
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition

NOON_S = datetime(2024, 5, 1, 12, 0, tzinfo=UTC).timestamp()


def table_of(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "positions.csv"
    path.write_bytes(text.encode(encoding))
    return path


def placed(folder: Path, text: str, *paths: str) -> PlacedImages:
    return read_positions(table_of(folder, text)).apply(ImageRecord(path) for path in paths)


@pytest.mark.parametrize(
    ("header", "cells", "position"),
    [
        ("image,latitude,longitude", "52.2,0.11", GeoPosition(52.2, 0.11)),
        ("name,lat,lon", "-90,180", GeoPosition(-90.0, 180.0)),
        (" Path , LAT , Lng ", " 52.2 , 1e-1 ", GeoPosition(52.2, 0.1)),
        ("key,easting,northing", "302821.3,5787812.3", MetricPosition(302821.3, 5787812.3, "UTM")),
        ("file,utm_east,utm_north,zone", "1,2,31U", MetricPosition(1.0, 2.0, "UTM 31U")),
        ("filename,east,north,utm_zone", "1,2,utm 3n", MetricPosition(1.0, 2.0, "UTM 03N")),
        ("filename,east,north,utm_zone", "1,2,", MetricPosition(1.0, 2.0, "UTM")),
        ("image,x,y", "-1.5,2", MetricPosition(-1.5, 2.0, "local")),
        ("image,x_m,y_m,camera", "1,2,left", MetricPosition(1.0, 2.0)),
        ("image,x,y,lat,lon", "7,8,52,0.1", GeoPosition(52.0, 0.1)),
        ("image,lat,easting,northing", "52,1,2", MetricPosition(1.0, 2.0, "UTM")),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_columns_are_told_by_their_names(tmp_path, header, cells, position, separator, line_end):
    text = f"{header}\na.jpg,{cells}\n".replace(",", separator).replace("\n", line_end)
    assert placed(tmp_path, text, "a.jpg").records == (ImageRecord("a.jpg", position),)


def test_spreadsheets_may_begin_with_a_byte_order_mark(tmp_path):
    table = read_positions(table_of(tmp_path, "image,x,y\nä.jpg,1,2\n", "utf-8-sig"))
    assert table.rows == (ImageRecord("ä.jpg", MetricPosition(1.0, 2.0)),)


@pytest.mark.parametrize(
    ("cell", "expected_s"),
    [
        (f"{NOON_S:.0f}", NOON_S),
        (f"{NOON_S:.0f}.25", NOON_S + 0.25),
        ("-0.5", -0.5),
        ("2024-05-01T12:00:00Z", NOON_S),
        ("2024-05-01 14:00:00.5+02:00", NOON_S + 0.5),
        ("20240501T120000Z", NOON_S),
        ("", None),
    ],
)
def test_timestamps(tmp_path, cell, expected_s):
    (record,) = placed(tmp_path, f"image,x,y,timestamp\na.jpg,1,2,{cell}\n", "a.jpg").records
    assert record.timestamp_s == expected_s


@pytest.mark.parametrize(("cell", "expected"), [("0", 0.0), ("-90", 270.0), ("360", 0.0), ("-1e-30", 0.0), ("", None)])
def test_headings_run_from_0_to_360(tmp_path, cell, expected):
    (record,) = placed(tmp_path, f"image,x,y,compass\na.jpg,1,2,{cell}\n", "a.jpg").records
    assert record.heading_deg == expected


def test_the_table_wins_over_the_name_and_empty_cells_say_nothing(tmp_path):
    named = record_of("@1.0@2.0@31@U@52.2@0.11@place@@90@@@@2019@.jpg")
    text = f"image,x,y,heading,time\n{named.path},7,8,,5\n"
    (record,) = read_positions(table_of(tmp_path, text)).apply([named]).records
    assert record == ImageRecord(named.path, MetricPosition(7.0, 8.0), 90.0, 5.0)
    text = f"image,x,y,heading\n{named.path},,,45\n"
    (record,) = read_positions(table_of(tmp_path, text)).apply([named]).records
    assert record == ImageRecord(named.path, named.position, 45.0, named.timestamp_s)


def test_rows_find_images_by_path_or_by_a_name_that_only_one_image_has(tmp_path):
    text = "image,x,y\nleft/1.jpg,1,0\nright\\1.jpg,2,0\n./3.jpg,3,0\n4.jpg,4,0\n5,5,0\n"
    result = placed(tmp_path, text, "left/1.jpg", "right/1.jpg", "3.jpg", "deep/er/4.jpg", "left/5.png")
    assert [record.position.x_m for record in result.records] == [1, 2, 3, 4, 5]
    assert result.rows_without_image == result.images_without_row == Unmatched(0, None)


def test_a_path_wins_over_a_file_name(tmp_path):
    result = placed(tmp_path, "image,x,y\n1.jpg,1,0\nleft/1.jpg,2,0\n", "left/1.jpg")
    assert result.records[0].position == MetricPosition(2.0, 0.0)
    assert result.rows_without_image == Unmatched(1, "1.jpg")
    result = placed(tmp_path, "image,x,y\n1.jpg,1,0\n", "1.jpg", "left/1.jpg")
    assert [record.position for record in result.records] == [MetricPosition(1.0, 0.0), None]


def test_folders_are_never_ignored(tmp_path):
    # Two cameras that number their images alike are two places.
    with pytest.raises(BadInputError, match=r"none of the 1 rows .* about left/1\.jpg; .* such as right/1\.jpg"):
        placed(tmp_path, "image,x,y\nleft/1.jpg,1,0\n", "right/1.jpg")


def test_file_names_of_several_images_are_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"line 3: 2\.jpg may be left/2\.jpg or right/2\.jpg"):
        placed(tmp_path, "image,x,y\nleft/1.jpg,0,0\n2.jpg,1,0\n", "left/1.jpg", "left/2.jpg", "right/2.jpg")


def test_what_has_no_partner_is_counted_with_an_example(tmp_path):
    result = placed(tmp_path, "image,x,y\na.jpg,1,0\nb.jpg,2,0\nc.jpg,3,0\n", "a.jpg", "d.jpg")
    assert result.rows_without_image == Unmatched(2, "b.jpg")
    assert result.images_without_row == Unmatched(1, "d.jpg")
    assert result.records[1] == ImageRecord("d.jpg")


def test_the_same_row_twice_is_one_row(tmp_path):
    table = read_positions(table_of(tmp_path, "image,x,y,heading\na.jpg,1,2,\n./a.jpg,1.0,2,\na.jpg,1,2,\n"))
    assert [row.path for row in table.rows] == ["a.jpg"]
    assert placed(tmp_path, "image,x,y\na.jpg,1,2\na,1,2\n", "sub/a.jpg").rows_without_image.count == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x,y\na.jpg,1,2\nb.jpg,1,2\na.jpg,1,3\n", r"lines 2 and 4 differ about a\.jpg"),
        ("image,x,y,heading\na.jpg,1,2,\na.jpg,1,2,3\n", r"lines 2 and 3 differ about a\.jpg"),
        ("image,lat,lon\na.jpg,1,2\nb.jpg,91,2\n", r"line 3, column lat: found '91'; expected degrees from -90 to 90"),
        ("image,Lat,lon\na.jpg,nan,2\n", r"line 2, column Lat: found 'nan'"),
        ("image,lat,lon\na.jpg,1,-180.1\n", r"column lon: found '-180.1'; expected degrees from -180 to 180"),
        ("image,lat,lon\na.jpg,north,2\n", r"column lat: found 'north'"),
        ("image;east;north\na.jpg;302,821;1,5\n", r"column east: found '302,821'; .* with a decimal point"),
        ("image,lat,lon\na.jpg,52°N,5°N\n", r"column lon: found '5°N'; expected degrees from -180 to 180"),
        ("a.jpg,52,0.1\nb.jpg,52,0.2\n", r"columns a.jpg, 52, 0.1; expected .* add a line with the names"),
        ("sep=;\nimage;x;y\na.jpg;1;n\n", r"line 3, column y: found 'n'"),
        ("image,lat,lon\na.jpg,1,\n", r"line 2, column lon: found an empty cell; fill in both"),
        ("image,east,north\n\n\na.jpg,,1\n", r"line 4, column east: found an empty cell"),
        ("image,east,north,zone\na.jpg,1,2,61N\n", r"column zone: found '61N'; expected a UTM zone such as 31U"),
        ("image,x,y\na.jpg,inf,1\n", r"column x: found 'inf'; expected a number of metres"),
        ("image,x,y,heading\na.jpg,1,1,N\n", r"column heading: found 'N'; expected degrees"),
        ("image,x,y,bearing\na.jpg,1,1,400\n", r"column bearing: found '400'"),
        ("image,x,y,time\na.jpg,1,1,2024-05-01T12:00:00\n", r"column time: .* add one, such as Z"),
        ("image,x,y,time\na.jpg,1,1,1714564800000\n", r"column time: .* not milliseconds"),
        ("image,x,y,time\na.jpg,1,1,nan\n", r"column time: found 'nan'"),
        ("image,x,y,time\na.jpg,1,1,noon\n", r"column time: found 'noon'; expected seconds since 1970"),
        ("image,x,y\n,1,1\n", r"line 2, column image: found an empty cell"),
        ('image,x,y,note\na.jpg,1,1,"two\nlines"\nb.jpg,1,n,\n', r"line 4, column y: found 'n'"),
        ("image,lat,easting\na.jpg,1,1\n", r"has the columns image, lat, easting; expected a column image, and lat"),
        ("lat,lon\n1,1\n", r"has the columns lat, lon"),
        ("image,x,y\n", r"has no rows"),
        ("image,x,y\n\n,,\n", r"has no rows"),
        ("", r"is not a table \(No columns"),
        ("image,x,y\na.jpg,1,2\na,b.jpg,1,2\n", r"is not a table \(Expected 3 fields in line 3, saw 4\)"),
        ("image,x,y\na,b.jpg,1,2\n", r"more cells than its header"),
        ("image,x,y\na.jpg,1,2,\n", r"more cells than its header"),
    ],
)
def test_mistakes_are_explained_with_their_line_and_column(tmp_path, text, message):
    path = table_of(tmp_path, text)
    with pytest.raises(BadInputError, match=message) as caught:
        read_positions(path)
    assert str(path) in str(caught.value)


def test_names_with_and_without_extension_must_agree(tmp_path):
    with pytest.raises(BadInputError, match=r"lines 2 and 3 differ about sub/a\.jpg"):
        placed(tmp_path, "image,x,y\na.jpg,1,2\na,1,3\n", "sub/a.jpg")


def test_files_that_are_no_table_are_explained(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        read_positions(tmp_path / "none.csv")
    with pytest.raises(BadInputError, match="is not a file"):
        read_positions(tmp_path)
    with pytest.raises(BadInputError, match="not text in UTF-8"):
        read_positions(table_of(tmp_path, "image,x,y\nä.jpg,1,2\n", "latin-1"))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,latitude,longitude,heading\na.jpg,49.25,-7.5,-90\n", "utf-8"),
        ("image\tlatitude\tlongitude\theading\r\na.jpg\t49.25\t-7.5\t270\r\n", "utf-16"),
        ("image;latitude;longitude;heading\na.jpg;49,25;-7,5;270,0\n", "utf-8-sig"),
        ('"Image","Latitude","Longitude","Heading"\n"a.jpg","49,25","-7,5","270"\n', "utf-8"),
        ("sep=;\r\nimage;latitude;longitude;heading\r\na.jpg;49.25;-7.5;270\r\n", "utf-8-sig"),
        ('"SEP=\t"\r\nimage\tlatitude\tlongitude\theading\r\na.jpg\t49.25\t-7.5\t270\r\n', "utf-16"),
        ("image,latitude,longitude,heading\ra.jpg,49.25,-7.5,270\r", "utf-8"),
        ("# image, latitude [deg], longitude (deg), heading\na.jpg, 49.25, -7.5, 270\n", "utf-8"),
        ("image,latitude,longitude,heading\na.jpg,49.25°,-7.5°,270°\n", "utf-8"),
        ("image,latitude,longitude,heading\na.jpg,49.25 N,7.5W,270\n", "utf-8"),
        ('image;lat;long;heading\na.jpg;"49° 15\' 0"" N";"7°30\'W";270\n', "utf-8"),
        ("image;lat;lon;heading\na.jpg;49,25°;\u22127,5;-90,0\n", "utf-8"),
        (
            "SourceFile,GPSLatitude,GPSLongitude,GPSImgDirection\n"
            './a.jpg,"49 deg 15\' 0.00"" N","7 deg 30\' 0"" W",270\n',
            "utf-8",
        ),
    ],
)
def test_tables_as_spreadsheets_and_scripts_save_them(tmp_path, text, encoding):
    (record,) = read_positions(table_of(tmp_path, text, encoding)).apply([ImageRecord("a.jpg")]).records
    assert record == ImageRecord("a.jpg", GeoPosition(49.25, -7.5), 270.0)


@pytest.mark.parametrize(
    ("cell", "metres"),
    [
        ("302821,3", 302821.3),
        ("302821.3", 302821.3),
        ("302.821,3", 302821.3),
        ("302,821.3", 302821.3),
        ("302 821,3", 302821.3),
        ("302\u00a0821.3", 302821.3),
        ("5.787.812", 5787812.0),
        ("5,787,812", 5787812.0),
        ("0,125", 0.125),
        ("302.821", 302.821),
        ("\u22121,5", -1.5),
    ],
)
def test_numbers_of_both_conventions(tmp_path, cell, metres):
    (record,) = placed(tmp_path, f"image;x;y\na.jpg;{cell};0\n", "a.jpg").records
    assert record.position == MetricPosition(metres, 0.0)


def test_missing_values_of_scripts_are_empty_cells(tmp_path):
    text = "image,lat,lon,heading\na.jpg,49,7,NaN\nb.jpg,nan,nan,90\nc.jpg,N/A,NA,\n"
    records = placed(tmp_path, text, "a.jpg", "b.jpg", "c.jpg").records
    assert records == (
        ImageRecord("a.jpg", GeoPosition(49.0, 7.0)),
        ImageRecord("b.jpg", None, 90.0),
        ImageRecord("c.jpg"),
    )


@pytest.mark.parametrize("written", ["{folder}/{path}", "photos/{path}", ".\\photos\\{path}", "D:\\me\\photos\\{path}"])
def test_rows_may_begin_with_the_folder_of_the_images(tmp_path, written):
    folder, paths = tmp_path / "photos", ("a.jpg", "sub/b.jpg", "sub/c.jpg")
    folder.mkdir()
    rows = "".join(f"{written.format(folder=folder, path=path)},{x},0\n" for x, path in enumerate(paths[:2]))
    table = read_positions(table_of(tmp_path, f"image,x,y\n{rows}"))
    records = table.apply(map(ImageRecord, paths), folder).records
    assert [record.position and record.position.x_m for record in records] == [0.0, 1.0, None]


def test_names_in_another_unicode_form_or_case(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "Café.jpg") for form in ("NFC", "NFD"))
    text = f"image,x,y\n{nfc},1,0\nsub/{nfd},2,0\n{nfc[:-4]}é,3,0\nB.JPG,4,0\n"
    records = placed(tmp_path, text, nfd, f"sub/{nfc}", f"deep/{nfd[:-4]}e\u0301.png", "b.jpg").records
    assert [record.position.x_m for record in records] == [1.0, 2.0, 3.0, 4.0]
    two = placed(tmp_path, f"image,x,y\n{nfc},1,0\n{nfd},2,0\n", nfc, nfd).records
    assert [record.position.x_m for record in two] == [1.0, 2.0]


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z"), exclude_characters="/\\"), min_size=1
)
facts = st.tuples(
    st.one_of(st.none(), st.tuples(st.floats(-90, 90), st.floats(-180, 180))),
    st.one_of(st.none(), st.floats(0, 360, exclude_max=True)),
    st.one_of(st.none(), st.floats(-1e10, 1e10)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names.filter(lambda name: name not in {".", ".."}), facts, min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path, facts_of):
    records = tuple(
        ImageRecord(f"folder/{name}", GeoPosition(*place) if place else None, heading_deg, timestamp_s)
        for name, (place, heading_deg, timestamp_s) in facts_of.items()
    )
    with (tmp_path / "positions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "latitude", "longitude", "heading", "timestamp"])
        for name, (place, heading_deg, timestamp_s) in facts_of.items():
            writer.writerow([f"folder/{name}", *(place or ("", "")), heading_deg, timestamp_s])
    result = read_positions(tmp_path / "positions.csv").apply(ImageRecord(record.path) for record in records)
    assert result.records == records


@pytest.mark.slow
def test_many_rows_may_come_in_another_order(tmp_path):
    count = 20_000
    rows = (f"left/{number:06d}.jpg,{number % 90},{number % 180},{number % 360}" for number in range(count))
    text = "image,lat,lon,heading\n" + "\n".join(rows)
    result = placed(tmp_path, text, *(f"left/{number:06d}.jpg" for number in reversed(range(count))))
    assert result.records[-1] == ImageRecord("left/000000.jpg", GeoPosition(0.0, 0.0), 0.0)
    assert result.images_without_row.count == 0
