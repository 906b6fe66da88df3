"""GPS position and heading from XMP of drones, editors and panoramas.

XMP is searched for properties by name instead of being parsed as XML, because packets are often damaged or truncated.
Names are those of the namespaces exif (CIPA DC-010), drone-dji and others of drones, and GPano.
"""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from vpr_dhe.geography.angles import LATITUDE, LONGITUDE, UnreadAngleError, degrees_of_text, number_of
from vpr_dhe.records import GeoPosition

_NAMES = "|".join(
    (
        "GPSLatitude(?:Ref)?",
        "GPSLong(?:i|ti)tude(?:Ref)?",  # DJI misspells it in some models
        "GPSImgDirection",
        "GPSStatus",
        "GPSMapDatum",
        "GimbalYawDegree",
        "CameraYawDegree",
        "PoseHeadingDegrees",
    )
)
_ATTRIBUTE = re.compile(rf"(?<![\w.-])([\w.-]+):({_NAMES})\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_ELEMENT = re.compile(rf"<([\w.-]+):({_NAMES})\b[^<>/]*>([^<]*)</", re.IGNORECASE)
_EXIF = "exif"
_HEADINGS = ("gpsimgdirection", "poseheadingdegrees", "gimbalyawdegree", "camerayawdegree")


@dataclass(frozen=True)
class Xmp:
    """Properties about the position, by namespace prefix and name, both in lower case."""

    properties: Mapping[tuple[str, str], str]

    @property
    def is_void(self) -> bool:
        """Whether the receiver had no fix."""
        return self.properties.get((_EXIF, "gpsstatus"), "").upper() == "V"

    @property
    def datum(self) -> str:
        """Geodetic datum in upper case; empty if not stated."""
        return self.properties.get((_EXIF, "gpsmapdatum"), "").upper()

    @cached_property
    def heading_deg(self) -> float | None:
        """Heading in [0, 360), clockwise from north."""
        for name in _HEADINGS:
            for (_, known), text in self.properties.items():
                if known == name and (heading := heading_of(_number(text))) is not None:
                    return heading
        return None

    def position(self) -> GeoPosition | None:
        """Read the position; None if there is none.

        Raises:
            UnreadAngleError: if there is an ambiguous one.
        """
        fault: UnreadAngleError | None = None
        for prefix in dict.fromkeys(prefix for prefix, _ in self.properties):
            try:
                if position := self._position_of(prefix):
                    return position
            except UnreadAngleError as error:
                fault = fault or error
        if fault:
            raise fault
        return None

    def _position_of(self, prefix: str) -> GeoPosition | None:
        latitude = self.properties.get((prefix, "gpslatitude"))
        longitude = self.properties.get((prefix, "gpslongitude"), self.properties.get((prefix, "gpslongtitude")))
        if not latitude and not longitude:
            return None
        signed = prefix != _EXIF
        return position_of(
            degrees_of_text(
                latitude or "", self.properties.get((prefix, "gpslatituderef"), ""), LATITUDE, signed=signed
            ),
            degrees_of_text(
                longitude or "", self.properties.get((prefix, "gpslongituderef"), ""), LONGITUDE, signed=signed
            ),
        )


def read_xmp(packet: bytes | str) -> Xmp:
    """Find the properties in an XMP packet or the content of a sidecar file."""
    text = packet if isinstance(packet, str) else _decoded(packet)
    return Xmp({(prefix.lower(), name.lower()): value for prefix, name, value in _properties(text)})


def position_of(latitude_deg: float, longitude_deg: float) -> GeoPosition:
    """Make a position.

    Raises:
        UnreadAngleError: if it is exactly 0 N 0 E, which receivers write without a fix.
    """
    if latitude_deg == longitude_deg == 0.0:
        raise UnreadAngleError("no fix")
    return GeoPosition(latitude_deg, longitude_deg)


def heading_of(degrees: float | None) -> float | None:
    """Heading in [0, 360) from degrees between -360 and 360; None for other values."""
    # The second remainder is for values just below 0, which the first rounds to 360.
    return degrees % 360 % 360 if degrees is not None and abs(degrees) <= 360 else None


def _properties(text: str) -> Iterator[tuple[str, str, str]]:
    for prefix, name, double, single in _ATTRIBUTE.findall(text):
        yield prefix, name, html.unescape(double or single).strip()
    for prefix, name, value in _ELEMENT.findall(text):
        yield prefix, name, html.unescape(value).strip()


def _decoded(packet: bytes) -> str:
    wide = packet.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0<\0" in packet[:64] or b"<\0" in packet[:64]
    if not wide:
        return packet.decode("utf-8", "replace")
    marked = packet.startswith((b"\xff\xfe", b"\xfe\xff"))
    return packet.decode("utf-16" if marked else "utf-16-le" if packet.find(b"<\0") >= 0 else "utf-16-be", "replace")


def _number(text: str) -> float | None:
    """Convert a decimal number or a rational."""
    numerator, _, denominator = text.partition("/")
    number, divisor = number_of(numerator), number_of(denominator or 1)
    return number / divisor if number is not None and divisor else None
