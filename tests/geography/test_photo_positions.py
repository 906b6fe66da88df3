"""One position, 37.81 S 144.96 E, in the ways that cameras, phones, drones and editors write it."""

import contextlib
import io
import struct
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geography.angles import LATITUDE, UnreadAngleError, degrees_of_text
from vpr_dhe.geography.exif import read_exif, unused_positions_text
from vpr_dhe.geography.xmp import read_xmp

LAT, LON = [(37, 1), (48, 1), (3600, 100)], [(144, 1), (57, 1), (3600, 100)]
WHOLE = {1: "S", 2: LAT, 3: "E", 4: LON}
PACKET = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description {}</rdf:RDF></x:xmpmeta>'
)
EDITOR = PACKET.format('exif:GPSLatitude="37,48.6S" exif:GPSLongitude="144,57.6E"/>')


def stored(value) -> tuple[int, int, bytes]:
    """Type, count and bytes of a tag: text, doubles, short numbers, or rationals, signed if one is negative."""
    if isinstance(value, str):
        return 2, len(value) + 1, value.encode() + b"\0"
    if isinstance(value[0], float):
        return 12, len(value), struct.pack(f"<{len(value)}d", *value)
    if isinstance(value[0], int):
        return 3, len(value), struct.pack(f"<{len(value)}H", *value)
    signed = any(part < 0 for pair in value for part in pair)
    return 10 if signed else 5, len(value), b"".join(struct.pack("<ll" if signed else "<LL", *pair) for pair in value)


def photo(gps=None, xmp: str = "", file_format: str = "JPEG") -> bytes:
    entries, heap, start = [], b"", 26 + 2 + 12 * len(gps or {}) + 4
    for tag, value in sorted((gps or {}).items()):
        kind, count, data = stored(value)
        inline = len(data) <= 4
        entries.append(struct.pack("<HHL", tag, kind, count) + (data.ljust(4, b"\0") if inline else b""))
        if not inline:
            entries[-1] += struct.pack("<L", start + len(heap))
            heap += data + b"\0" * (len(data) % 2)
    first = struct.pack("<LHHHLLL", 8, 1, 34853, 4, 1, 26, 0)
    block = b"Exif\0\0II*\0" + first + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + heap
    file = io.BytesIO()
    more = {"exif": block} if gps else {}
    PIL.Image.new("RGB", (32, 24)).save(file, file_format, **more, **({"xmp": xmp.encode()} if xmp else {}))
    return file.getvalue()


def with_tags(**tags) -> dict:
    changed = WHOLE | {int(name[1:]): value for name, value in tags.items()}
    return {tag: value for tag, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    "content",
    {
        "as the standard says": photo(WHOLE),
        "lower-case references": photo(with_tags(_1="s", _3="e")),
        "references in words": photo(with_tags(_1="South", _3="EAST ")),
        "unknown seconds": photo(with_tags(_2=[(37, 1), (48600, 1000), (0, 0)], _4=[(144, 1), (57600, 1000), (0, 0)])),
        "decimal degrees": photo(with_tags(_2=[(3781, 100), (0, 1), (0, 1)], _4=[(14496, 100), (0, 1), (0, 1)])),
        "decimal degrees, the rest unknown": photo(with_tags(_2=[(3781, 100), (0, 0), (0, 0)])),
        "two parts": photo(with_tags(_2=[(37, 1), (486, 10)], _4=[(144, 1), (576, 10)])),
        "one part": photo(with_tags(_2=[(3781, 100)], _4=[(14496, 100)])),
        "negative and S": photo(with_tags(_2=[(-37, 1), (48, 1), (36, 1)])),
        "all parts negative, no reference": photo(with_tags(_1=None, _2=[(-37, 1), (-48, 1), (-36, 1)])),
        "negative numbers in an unsigned type": photo(with_tags(_2=[(2**32 - 37, 1), (48, 1), (36, 1)])),
        "doubles": photo(with_tags(_2=(37.0, 48.0, 36.0), _4=(144.96,))),
        "short numbers": photo(with_tags(_2=(37, 48, 36), _4=(144, 57, 36))),
        "text": photo(with_tags(_2="37/1 48/1 36/1", _4="144, 57.6")),
        "text with units": photo(with_tags(_1=None, _2="37 deg 48' 36.00\" S", _4="144.96 E", _3=None)),
        "drone": photo(xmp=PACKET.format('drone-dji:GpsLatitude="-37.81" drone-dji:GpsLongitude="+144.96"/>')),
        "drone, misspelt": photo(
            xmp=PACKET.format('drone-dji:GpsLatitude="-37.81" drone-dji:GpsLongtitude="144.96"/>')
        ),
        "drone, elements": photo(
            xmp=PACKET.format("><d:GPSLatitude>-37.81</d:GPSLatitude><d:GPSLongitude>144.96</d:GPSLongitude></rdf:D>")
        ),
        "editor": photo(xmp=EDITOR),
        "editor, seconds": photo(xmp=PACKET.format("exif:GPSLatitude='37,48,36S' exif:GPSLongitude='144,57,36E'/>")),
        "editor, elements": photo(
            xmp=PACKET.format(
                "><exif:GPSLatitude>37,48.6S</exif:GPSLatitude>\n<exif:GPSLongitude>144,57.6E</exif:GPSLongitude></rdf:D>"
            )
        ),
        "PNG by an editor": photo(xmp="", file_format="PNG"),
        "WebP by an editor": photo(xmp=EDITOR, file_format="WEBP"),
        "references from the editor": photo(with_tags(_1=None, _3=None), xmp=EDITOR),
    }.items(),
    ids=lambda case: case[0],
)
def test_positions_without_doubt_are_read(content):
    name, photo_bytes = content
    if name.startswith("PNG"):
        file, chunks = io.BytesIO(), PIL.PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", EDITOR)
        PIL.Image.new("RGB", (32, 24)).save(file, "PNG", pnginfo=chunks)
        photo_bytes = file.getvalue()
    facts = read_exif(photo_bytes)
    assert facts.position is not None, facts.position_fault
    assert facts.position.latitude_deg == pytest.approx(-37.81)
    assert facts.position.longitude_deg == pytest.approx(144.96)
    assert facts.position_fault is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (photo(with_tags(_1=None, _3=None)), "no hemisphere"),
        (photo(with_tags(_3=None)), "no hemisphere"),
        (photo(with_tags(_3="N")), "hemisphere 'N'"),
        (photo(with_tags(_1="N", _2=[(-37, 1), (48, 1), (36, 1)])), "a sign against its hemisphere"),
        (photo(with_tags(_2=[(37, 1), (-48, 1), (36, 1)])), "parts of different signs"),
        (photo(with_tags(_2=[(37, 1), (0, 0), (0, 0)])), "missing minutes or seconds"),
        (photo(with_tags(_2=[(37, 1), (48, 1), (0, 0)])), "missing minutes or seconds"),
        (photo(with_tags(_2=[(3781, 100), (48, 1), (36, 1)])), "fractions beside smaller units"),
        (photo(with_tags(_2=[(0, 0)] * 3, _4=[(0, 0)] * 3)), "no fix"),
        (photo(with_tags(_2=[(0, 1)] * 3, _4=[(0, 1)] * 3)), "no fix"),
        (photo(with_tags(_2=[(91, 1), (0, 1), (0, 1)])), "a number out of range"),
        (photo(with_tags(_2="somewhere")), "'somewhere'"),
        (photo(with_tags(_9="V")), "no fix"),
        (photo(with_tags(_9="V"), xmp=EDITOR), "no fix"),
        (photo(with_tags(_18="Tokyo"), xmp=EDITOR), "datum TOKYO"),
        (photo(xmp=PACKET.format('exif:GPSLatitude="37.81" exif:GPSLongitude="144.96"/>')), "no hemisphere"),
        (photo(xmp=PACKET.format('drone-dji:GpsLatitude="0.0" drone-dji:GpsLongitude="0.0"/>')), "no fix"),
        (photo(xmp=PACKET.format('drone-dji:GpsLatitude="-37.81"/>')), "''"),
        (photo({29: "2024:05:01"}), None),
        (photo(), None),
    ],
)
def test_other_positions_are_left_out_with_a_reason(content, fault):
    facts = read_exif(content)
    assert (facts.position, facts.position_fault) == (None, fault)


@pytest.mark.parametrize(
    ("gps", "xmp", "heading_deg"),
    [
        ({17: [(360, 1)]}, "", 0.0),
        ({17: [(-90, 1)]}, "", 270.0),
        ({17: [(-1, 2)]}, "", 359.5),
        ({17: [(450, 1)]}, "", None),
        ({17: [(0, 0)]}, 'drone-dji:GimbalYawDegree="-90.0"/>', 270.0),
        ({}, 'drone-dji:GimbalYawDegree="+12.5" drone-dji:FlightYawDegree="-3"/>', 12.5),
        ({}, 'exif:GPSImgDirection="9050/100"/>', 90.5),
        ({}, 'GPano:PoseHeadingDegrees="271"/>', 271.0),
        ({17: [(10, 1)]}, 'drone-dji:GimbalYawDegree="-90.0"/>', 10.0),
        ({}, 'drone-dji:GimbalYawDegree="north"/>', None),
    ],
)
def test_headings(gps, xmp, heading_deg):
    assert read_exif(photo(gps, PACKET.format(xmp) if xmp else "")).heading_deg == heading_deg


@pytest.mark.parametrize("name", ["photo.xmp", "photo.jpg.xmp", "photo.XMP"])
def test_sidecars_of_editors(name, tmp_path: Path):
    path = tmp_path / "photo.jpg"
    assert read_exif(photo(), path).position is None
    (tmp_path / name).write_text(EDITOR)
    position = read_exif(photo(), path).position
    assert position is not None
    assert position.latitude_deg == pytest.approx(-37.81)
    assert read_exif(photo(with_tags(_1="N")), path).position != position, "the photo's own position goes first"


@given(st.floats(-90, 90).filter(lambda value: abs(value) > 1e-3))
def test_signed_decimals_are_read_as_written(latitude):
    assert degrees_of_text(f"{latitude:+.9f}", "", LATITUDE) == pytest.approx(latitude, abs=1e-9)


@given(st.text(max_size=30), st.binary(max_size=60))
def test_no_text_is_a_surprise(text, packet):
    with contextlib.suppress(UnreadAngleError):
        assert abs(degrees_of_text(text, "N", LATITUDE)) <= 90
    read_xmp(packet)
    read_xmp(PACKET.format(f'exif:GPSLatitude="{text}"/>'))


def test_unused_positions_are_counted_by_reason():
    unused = [("a.jpg", "no fix"), ("b.jpg", "no hemisphere"), ("c.jpg", "no fix")]
    expected = "3 positions in metadata cannot be used (2 no fix, 1 no hemisphere), such as of a.jpg"
    assert unused_positions_text(unused) == expected


def test_index_and_evaluate_count_what_they_do_not_use(tmp_path, thumbnail_extractor, caplog):
    from vpr_dhe.datasets.folders import read_folders
    from vpr_dhe.errors import DatasetError
    from vpr_dhe.index.ingest import UnusedPosition
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.records import ImageRecord

    for folder in ("database", "queries"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(photo(WHOLE))
    (tmp_path / "database" / "b.jpg").write_bytes(photo(with_tags(_1=None)))
    (tmp_path / "database" / "c.jpg").write_bytes(photo())
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, tmp_path / "database", codec="float16")
    report = index.add([ImageRecord(f"{name}.jpg") for name in "abc"], thumbnail_extractor)
    assert (report.added, report.unused_positions) == (3, (UnusedPosition("b.jpg", "no hemisphere"),))
    with pytest.raises(DatasetError, match="has no position"):
        read_folders(tmp_path)
    assert "1 position in metadata cannot be used (1 no hemisphere), such as of b.jpg" in caplog.text
