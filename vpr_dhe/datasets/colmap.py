"""Data sets with a COLMAP reconstruction (https://colmap.github.io/format.html), as text or binary.

Only images.txt or images.bin of the model is read: the pose of each image, from the world to the camera. The model is
in the data set's folder or in sparse, sparse/0 or model below it; the images are in images, images/images_upright (as
in Aachen Day-Night), images_upright or the folder itself. Queries are given by a list or a folder. See `located` for
distances in the frame of a reconstruction.
"""

import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from vpr_dhe.datasets.base import Layout, PlaceDataset, Protocol
from vpr_dhe.datasets.camera_poses import pose_of
from vpr_dhe.datasets.located import LocatedImages, Spot, dataset_by_distance, spot_in_world
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.images.listing import list_images
from vpr_dhe.images.names import tidy_path
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.text import number_or_nan

_MODEL_FOLDERS = (".", "sparse", "sparse/0", "model")
_IMAGE_FOLDERS = ("images", "images/images_upright", "images_upright", ".")
# In the order of COLMAP, which prefers the binary file.
_MODEL_FILES = ("images.bin", "images.txt")
_FIELDS = "IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"
_COUNT = struct.Struct("<Q")
_HEAD = struct.Struct("<I7dI")
_BYTES_PER_POINT = 24
_MAX_NAME_BYTES = 4096
_PROBES = 100


def read_colmap(
    root: Path,
    *,
    queries: str,
    database: str | None = None,
    model: Path | None = None,
    radius: float = RADIUS_M,
) -> PlaceDataset:
    """Read database and queries of one model.

    Positives are within the radius of the query's camera. Images that are not in the model are dropped and counted in
    the protocol; if the model contains no query, the ground truth is not public, and positives are None.

    Args:
        root: folder of the data set.
        queries: list of images, relative to `root`: a text file with one image per line, by its path in the folder of
            images; anything after the first space is ignored (as the camera intrinsics in lists of hloc). Or a folder
            below the folder of images.
        database: list or folder of the database; None means all images of the model that are not queries.
        model: folder of the model, if it is not at a default path.
        radius: radius in units of the model, which need not be metres.

    Raises:
        DatasetError: if the model, the images, a list, a folder or a listed image is missing; if a file cannot be read
            (the message names the line or image); if an image is in both database and queries; if no database image is
            in the model, or no query has a positive.
    """
    file = _model_file([model] if model else [root / folder for folder in _MODEL_FOLDERS])
    spot_of = {name: spot_in_world(centre) for name, centre in _centres(file).items()}
    images = _image_folder(root, file, spot_of)
    asked = _named_images(root, images, queries)
    near = _named_images(root, images, database) if database else _others(file, images, spot_of, set(asked))
    _require_apart(root, near, asked)
    source = f"COLMAP model {file.parent.name}, database {database or 'of all other images'}, queries {queries}"
    return dataset_by_distance(
        root.resolve().name,
        source,
        LocatedImages(images, tuple((path, spot_of.get(path)) for path in near)),
        LocatedImages(images, tuple((path, spot_of.get(path)) for path in asked)),
        radius=radius,
        unit="units of the model",
    )


def read_camera_centres(model: StrPath) -> dict[str, tuple[float, float, float]]:
    """Read the centre of each camera of a model, by the name of its image, in the axes and unit of the model.

    Raises:
        DatasetError: if the folder contains no images.bin or images.txt, or the file cannot be read.
    """
    return _centres(_model_file([Path(model)]))


def _read(root: Path, protocol: Protocol) -> PlaceDataset:
    if protocol.queries is None:
        raise DatasetError(
            f"{root}: a COLMAP model does not say which images are queries; give by --queries a list of them (a text "
            "file in the data set's folder, one path per line) or a folder below the folder of images"
        )
    return read_colmap(
        root,
        queries=protocol.queries,
        database=protocol.database,
        model=protocol.positions,
        radius=RADIUS_M if protocol.radius_m is None else protocol.radius_m,
    )


def _recognises(root: Path) -> bool:
    folders = [root / folder for folder in _MODEL_FOLDERS]
    return any(
        (folder / f"images{kind}").is_file() and (folder / f"cameras{kind}").is_file()
        for folder in folders
        for kind in (".bin", ".txt")
    )


LAYOUT = Layout(
    name="colmap",
    expected="a model (images.bin or images.txt) in sparse/0, folder images, --queries a list of images or a folder",
    options=frozenset({"database", "queries", "positions", "radius_m"}),
    recognises=_recognises,
    read=_read,
)


def _model_file(folders: Sequence[Path]) -> Path:
    for folder, name in itertools.product(folders, _MODEL_FILES):
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"no COLMAP model in {', '.join(str(folder) for folder in folders)}; expected {' or '.join(_MODEL_FILES)}; "
        "give the model's folder by --positions"
    )


def _image_folder(root: Path, file: Path, names: Mapping[str, Spot]) -> Path:
    """First default folder in which one of the first images of the model exists."""
    folders = [root / folder for folder in _IMAGE_FOLDERS]
    for folder in folders:
        if any((folder / name).is_file() for name in itertools.islice(names, _PROBES)):
            return folder
    raise DatasetError(
        f"images of {file}, such as {next(iter(names))}, are in none of "
        f"{', '.join(str(folder) for folder in folders)}; move or link the folder of images there"
    )


def _named_images(root: Path, images: Path, entry: str) -> list[str]:
    """Paths of the images of a list or a folder, relative to the folder of images."""
    if (root / entry).is_file():
        return list(_listed(root / entry, images))
    if (images / entry).is_dir():
        return [tidy_path(f"{entry}/{path}") for path in list_images(images / entry)]
    raise DatasetError(
        f"neither {root / entry} is a file nor {images / entry} a folder; expected a list of images or a folder of them"
    )


def _listed(file: Path, images: Path) -> Iterator[str]:
    for number, line in _text_lines(file):
        if not line.strip() or line.startswith("#"):
            continue
        path = tidy_path(line.split()[0])
        if not (images / path).is_file():
            raise DatasetError(f"{file}, line {number}: {images / path} does not exist; expected an image's path")
        yield path


def _others(file: Path, images: Path, names: Mapping[str, Spot], queries: set[str]) -> list[str]:
    others = sorted(name for name in names if name not in queries)
    absent = [name for name in others if not (images / name).is_file()]
    if absent:
        raise DatasetError(
            f"{file} holds {len(absent)} images that do not exist, such as {images / absent[0]}; add them, or name "
            "those of the database by --database"
        )
    return others


def _require_apart(root: Path, database: list[str], queries: list[str]) -> None:
    """Check that no image is both in the database and a query."""
    shared = sorted(set(database) & set(queries))
    if shared:
        raise DatasetError(
            f"{root}: {len(shared)} images are both in the database and queries, such as {shared[0]}; expected each on "
            "one side; without --database, it is all images of the model but the queries"
        )


def _centres(file: Path) -> dict[str, tuple[float, float, float]]:
    """Camera centres by image, in the order of the model.

    Raises:
        DatasetError: if the file cannot be read, contains no image, or contains one twice.
    """
    found: dict[str, tuple[float, float, float]] = {}
    for where, numbers, name in _binary_images(file) if file.suffix == ".bin" else _text_images(file):
        if name in found:
            raise DatasetError(f"{file}, {where}: {name} is there twice; expected each image once")
        try:
            found[name] = pose_of(numbers).centre
        except ValueError as error:
            raise DatasetError(
                f"{file}, {where}: found the pose {', '.join(f'{number:g}' for number in numbers)}; expected {error}"
            ) from None
    if not found:
        raise DatasetError(f"{file} holds no image; expected the poses of a reconstruction")
    return found


def _text_images(file: Path) -> Iterator[tuple[str, list[float], str]]:
    """Yield location in the file, seven numbers of the pose, and name of each image; a line of points follows each."""
    lines = _text_lines(file)
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.strip().split(maxsplit=9)
        if len(cells) != 10:
            raise DatasetError(f"{file}, line {number}: found {len(cells)} values; expected {_FIELDS}")
        yield f"line {number}", [number_or_nan(cell) for cell in cells[1:8]], cells[9]
        number_of_points, points = next(lines, (number + 1, ""))
        if len(points.split()) % 3:
            raise DatasetError(
                f"{file}, line {number_of_points}: found {len(points.split())} values; expected the points of the "
                "image before, X, Y, POINT3D_ID each; leave the line empty where there are none"
            )


def _text_lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from enumerate(lines, start=1)
    except UnicodeError:
        raise DatasetError(f"{file} is not text in UTF-8; expected one line per image") from None


def _binary_images(file: Path) -> Iterator[tuple[str, list[float], str]]:
    """Like `_text_images`, from images.bin: a count, then identifier, pose, camera, name and points of each image."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        (count,) = _unpacked(stream, _COUNT, file)
        for number in range(1, count + 1):
            _, *numbers, _ = _unpacked(stream, _HEAD, file)
            name = _name(stream, file)
            yield f"image {number} ({name})", numbers, name
            (points,) = _unpacked(stream, _COUNT, file)
            if stream.tell() + points * _BYTES_PER_POINT > size:
                raise _cut_off(file)
            stream.seek(points * _BYTES_PER_POINT, 1)


def _unpacked(stream: BinaryIO, form: struct.Struct, file: Path) -> tuple:
    content = stream.read(form.size)
    if len(content) < form.size:
        raise _cut_off(file)
    return form.unpack(content)


def _name(stream: BinaryIO, file: Path) -> str:
    content = bytearray()
    while (byte := stream.read(1)) not in {b"\0", b""} and len(content) < _MAX_NAME_BYTES:
        content += byte
    if byte != b"\0":
        raise _cut_off(file)
    try:
        return content.decode()
    except UnicodeError:
        raise _cut_off(file) from None


def _cut_off(file: Path) -> DatasetError:
    return DatasetError(
        f"{file} is cut off or not an images.bin of COLMAP; get the file again, or export the model as text"
    )
