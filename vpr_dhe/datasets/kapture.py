"""Data sets in the format kapture (github.com/naver/kapture, kapture_format.adoc, version 1.1).

Database and queries are one kapture each, in folders such as mapping and query. The reader uses
sensors/records_camera.txt (images in sensors/records_data), trajectories.txt and rigs.txt (poses of cameras or rigs),
and records_gnss.txt (longitude and latitude).

Positions are camera centres if both kaptures have poses, otherwise GNSS positions at the same timestamp. See `located`
for distances in the frame of a reconstruction. Timestamps are otherwise ignored, because the format allows any integer,
such as a counter.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.datasets.base import Layout, PlaceDataset, Protocol
from vpr_dhe.datasets.camera_poses import Pose, pose_of
from vpr_dhe.datasets.located import LocatedImages, Spot, dataset_by_distance, spot_in_world, spot_on_earth
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.records import GeoPosition

_DATABASE, _QUERIES = "mapping", "query"
_SENSORS, _IMAGES = "sensors", "records_data"
_CAMERA, _POSES, _RIGS, _GNSS, _LIST = (
    "records_camera.txt",
    "trajectories.txt",
    "rigs.txt",
    "records_gnss.txt",
    "sensors.txt",
)
_POSE = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
_COLUMNS = {
    _CAMERA: ("timestamp", "device_id", "image_path"),
    _POSES: ("timestamp", "device_id", *_POSE),
    _RIGS: ("rig_id", "sensor_id", *_POSE),
    _GNSS: ("timestamp", "device_id", "x", "y", "z", "utc", "dop"),
}
# The format's default.
_DEGREES = "EPSG:4326"


@dataclass(frozen=True)
class _CameraRecord:
    """One line of records_camera.txt."""

    timestamp: int
    device: str
    path: str


@dataclass(frozen=True)
class _Capture:
    """Content of one kapture.

    `poses` are from the world to a device, by time and device; `mounts` are from a rig to a device, by device and rig;
    `receivers` are positions by time and receiver.
    """

    folder: Path
    photos: tuple[_CameraRecord, ...]
    poses: dict[tuple[int, str], Pose]
    mounts: dict[str, dict[str, Pose]]
    receivers: dict[int, dict[str, GeoPosition]]

    def by_poses(self) -> LocatedImages:
        """Images with their camera centres."""
        return LocatedImages(self.folder, tuple((photo.path, self._in_world(photo)) for photo in self.photos))

    def by_receivers(self) -> LocatedImages:
        """Images with the GNSS positions at the same time."""
        return LocatedImages(self.folder, tuple((photo.path, self._on_earth(photo)) for photo in self.photos))

    def _in_world(self, photo: _CameraRecord) -> Spot | None:
        pose = self._pose(photo.timestamp, photo.device, frozenset())
        return None if pose is None else spot_in_world(pose.centre)

    def _pose(self, timestamp: int, device: str, carried: frozenset[str]) -> Pose | None:
        """Pose of a device: its own, or through a rig, which may be mounted on another rig."""
        own = self.poses.get((timestamp, device))
        if own is not None:
            return own
        for rig, mount in self.mounts.get(device, {}).items():
            below = None if rig in carried else self._pose(timestamp, rig, carried | {device})
            if below is not None:
                return mount.after(below)
        return None

    def _on_earth(self, photo: _CameraRecord) -> Spot | None:
        positions = self.receivers.get(photo.timestamp)
        if not positions:
            return None
        # For positions from EXIF, kapture's tools name the receiver after its camera (import_exif.py).
        return spot_on_earth(positions.get(f"GPS_{photo.device}", next(iter(positions.values()))))


def read_kapture(
    root: Path, *, database: str = _DATABASE, queries: str = _QUERIES, radius: float = RADIUS_M
) -> PlaceDataset:
    """Read two kaptures, of the database and of the queries.

    Positives are within the radius: between camera centres, in the unit of the poses, if both kaptures have poses;
    otherwise between GNSS positions, in metres. If the queries have neither, the ground truth is not public, and
    positives are None. Images without a position are dropped and counted in the protocol.

    Args:
        root: folder of both kaptures.
        database: folder of the database, relative to `root`, with the subfolder sensors.
        queries: folder of the queries, with the same structure.
        radius: radius in the unit of the poses, metres in most published data sets, or in metres for GNSS.

    Raises:
        DatasetError: if a folder, a file or an image is missing; if a line cannot be read (the message names it); if
            the database has no positions, or no query has a positive.
    """
    mapped, asked = (_read_capture(root, name) for name in (database, queries))
    ways = (
        (mapped.by_poses(), asked.by_poses(), "by poses", "units of the world"),
        (mapped.by_receivers(), asked.by_receivers(), "by GNSS", "m"),
    )
    possible = [way for way in ways if way[0].any_known and way[1].any_known]
    # If the positions of the queries are not public, those of the database may be of any kind.
    possible += [way for way in ways if way[0].any_known]
    near, far, how, unit = next(iter(possible), ways[0])
    source = f"kapture, {database} and {queries}, {how}"
    return dataset_by_distance(root.resolve().name, source, near, far, radius=radius, unit=unit)


def _read(root: Path, protocol: Protocol) -> PlaceDataset:
    return read_kapture(
        root,
        database=protocol.database or _DATABASE,
        queries=protocol.queries or _QUERIES,
        radius=RADIUS_M if protocol.radius_m is None else protocol.radius_m,
    )


def _recognises(root: Path) -> bool:
    return all((root / name / _SENSORS / _CAMERA).is_file() for name in (_DATABASE, _QUERIES))


LAYOUT = Layout(
    name="kapture",
    expected=f"{_DATABASE}/{_SENSORS}/{_CAMERA} and {_QUERIES}/{_SENSORS}/{_CAMERA}",
    options=frozenset({"database", "queries", "radius_m"}),
    recognises=_recognises,
    read=_read,
)


def _read_capture(root: Path, name: str) -> _Capture:
    sensors = root / name / _SENSORS
    if not (sensors / _CAMERA).is_file():
        found = sorted(path.parent.parent.name for path in root.glob(f"*/{_SENSORS}/{_CAMERA}"))
        others = f"the kaptures in {root} are {', '.join(found)}" if found else f"there is no kapture in {root}"
        raise DatasetError(
            f"{sensors / _CAMERA} does not exist; {others}; name that of the database by --database and that of the "
            "queries by --queries"
        )
    poses = {(timestamp, device): pose for timestamp, device, pose in _poses(sensors)}
    mounts: dict[str, dict[str, Pose]] = {}
    for _, (rig, sensor), pose in _lines_with_poses(sensors / _RIGS):
        if pose is not None:
            mounts.setdefault(sensor, {})[rig] = pose
    return _Capture(sensors / _IMAGES, tuple(_camera_records(sensors)), poses, mounts, _receivers(sensors))


def _camera_records(sensors: Path) -> Iterator[_CameraRecord]:
    file = sensors / _CAMERA
    for line, (timestamp, device, path) in _lines(file, _COLUMNS[_CAMERA]):
        if not (sensors / _IMAGES / path).is_file():
            raise DatasetError(
                f"{file}, line {line}: {sensors / _IMAGES / path} does not exist; expected an image; unpack all images "
                "of the data set"
            )
        yield _CameraRecord(_timestamp(file, line, timestamp), device, path)


def _poses(sensors: Path) -> Iterator[tuple[int, str, Pose]]:
    """Yield complete poses; those without rotation or translation have no centre."""
    file = sensors / _POSES
    first_line: dict[tuple[int, str], int] = {}
    for line, (text, device), pose in _lines_with_poses(file):
        timestamp = _timestamp(file, line, text)
        earlier = first_line.setdefault((timestamp, device), line)
        if earlier != line:
            raise DatasetError(
                f"{file}: lines {earlier} and {line} both place {device} at timestamp {timestamp}; keep one of them"
            )
        if pose is not None:
            yield timestamp, device, pose


def _receivers(sensors: Path) -> dict[int, dict[str, GeoPosition]]:
    """Positions by timestamp and receiver."""
    file = sensors / _GNSS
    systems = _coordinate_systems(sensors / _LIST)
    found: dict[int, dict[str, GeoPosition]] = {}
    for line, (timestamp, device, longitude, latitude, *_) in _lines(file, _COLUMNS[_GNSS]):
        if systems.get(device, _DEGREES) != _DEGREES:
            raise DatasetError(
                f"{file}, line {line}: {device} gives coordinates in {systems[device]} by {_LIST}; only {_DEGREES}, "
                "longitude and latitude, is read; convert them"
            )
        position = GeoPosition(_degrees(file, line, latitude, 90.0), _degrees(file, line, longitude, 180.0))
        found.setdefault(_timestamp(file, line, timestamp), {})[device] = position
    return found


def _coordinate_systems(file: Path) -> dict[str, str]:
    """Read coordinate systems by receiver, from lines of sensor_id, name, gnss, EPSG code."""
    lines = [cells for _, cells in _lines(file, None)]
    return {cells[0]: cells[3].upper() for cells in lines if len(cells) > 3 and cells[2] == "gnss" and cells[3]}


def _lines_with_poses(file: Path) -> Iterator[tuple[int, tuple[str, str], Pose | None]]:
    """Yield line number, two identifiers and pose of each line; None if its rotation or translation is empty."""
    for line, (first, second, *numbers) in _lines(file, _COLUMNS[file.name]):
        try:
            yield line, (first, second), _pose(numbers)
        except ValueError as error:
            raise DatasetError(
                f"{file}, line {line}: found the pose {', '.join(numbers)}; expected {error} in {', '.join(_POSE)}"
            ) from None


def _pose(cells: Sequence[str]) -> Pose | None:
    if not all(cells):
        return None
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        raise ValueError("finite numbers") from None
    return pose_of(numbers)


def _lines(file: Path, columns: tuple[str, ...] | None) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each line, without comments and blank lines; nothing if there is no file.

    Raises:
        DatasetError: if the file is not UTF-8, or a line has another number of cells than there are columns.
    """
    if not file.is_file():
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeError:
        raise DatasetError(f"{file} is not text in UTF-8, as kapture requires; download the file again") from None
    for number, line in enumerate(text.split("\n"), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or line.startswith("#"):
            continue
        if columns is not None and len(cells) != len(columns):
            raise DatasetError(f"{file}, line {number}: found {len(cells)} values; expected {', '.join(columns)}")
        yield number, cells


def _timestamp(file: Path, line: int, cell: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise DatasetError(f"{file}, line {line}: found the timestamp {cell!r}; expected a whole number") from None


def _degrees(file: Path, line: int, cell: str, limit: float) -> float:
    try:
        degrees = float(cell)
    except ValueError:
        degrees = math.nan
    # Written so that NaN fails too.
    if not abs(degrees) <= limit:
        raise DatasetError(f"{file}, line {line}: found {cell!r}; expected degrees from {-limit:g} to {limit:g}")
    return degrees
