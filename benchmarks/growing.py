"""Time to add one image to a large index, and to a small one.

    python benchmarks/growing.py --images 1000000 --folder FOLDER

The index is made up: its vectors are zero, in files with holes, its local maps two bytes each, and its images exist on
paper alone. Only the image that is added is a photo, of one colour, and its extractor does nothing; so the time is that
of the index. `opened` adds to an index that this process has opened and added to before, as a service or a robot does,
`new process` opens it first, as `vpr-dhe index --add` does. Times are of the processor, medians, so those of the disk
are left out. Writes `benchmarks/results/growing.md` and `growing.json`.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import cv2
import numpy as np
import torch
from measuring import RESULTS, table, write_result

from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.index.files import FileInfo
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.rows import ROW, check_of, path_digest
from vpr_dhe.index.segments import IMAGES, LOCAL_MAPS, ROWS, VECTORS, IndexedImage, SegmentInfo
from vpr_dhe.records import Features, Frame, Grid, Image, ImageRecord, Size

SEGMENT_IMAGES = 32_768
_DIMENSION = 384
_SIZE = Size(16, 16)


class BlankExtractor(Extractor):
    """Extractor of the same features for every image, in no time."""

    spec = ExtractorSpec("blank", "blank", _DIMENSION, 1, Grid(1, 1), _SIZE, False, 1.0)

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Return zeros."""
        return [Features(torch.zeros(_DIMENSION), torch.zeros(1, 1), Grid(1, 1), Frame(_SIZE, _SIZE)) for _ in images]


@dataclass(frozen=True)
class Row:
    """Milliseconds to add one image to an index of so many."""

    images: int
    opened_ms: float
    new_process_ms: float


def made_up_index(folder: Path, photos: Path, images: int) -> PlaceIndex:
    """Make an index of images that do not exist, in segments as adding them would have left."""
    index = PlaceIndex.create(folder, BlankExtractor.spec, photos, codec="float16", index_type="flat")
    add_one(index, photos, "first.png")
    with index.writing() as writer:
        manifest = writer.manifest
        for first in range(1, images, SEGMENT_IMAGES):
            count = min(SEGMENT_IMAGES, images - first)
            manifest = manifest.with_segment(made_up_segment(writer.segments_folder, first, count))
        writer.publish(replace(manifest, next_id=images))
    return PlaceIndex.open(folder)


def made_up_segment(folder: Path, first_id: int, count: int, vectors: np.ndarray | None = None) -> SegmentInfo:
    """Write a segment of images that do not exist; vectors (count x dimension) are zero unless given."""
    place = folder / f"{first_id:09d}-{count:08x}"
    place.mkdir()
    texts = [
        (json.dumps(asdict(IndexedImage(ImageRecord(made_up_path(id)), _SIZE))) + "\n").encode()
        for id in range(first_id, first_id + count)
    ]
    rows = np.zeros(count, ROW)
    rows["id"] = np.arange(first_id, first_id + count)
    digests = np.array([path_digest(made_up_path(id)) for id in rows["id"].tolist()], np.uint64)
    rows["path_high"], rows["path_low"] = digests.T
    rows["image_bytes"] = lengths = np.array([len(text) for text in texts])
    rows["image_offset"] = np.cumsum(lengths) - lengths
    rows["image_check"] = [check_of(text) for text in texts]
    rows["map_check"], rows["vector_check"] = check_of(bytes(2)), check_of(bytes(4 * _DIMENSION))
    if vectors is not None:
        rows["vector_check"] = [check_of(vector.data) for vector in vectors]
    contents = {ROWS: rows.tobytes(), LOCAL_MAPS: bytes(2 * count), IMAGES: b"".join(texts)}
    for name, content in contents.items():
        (place / name).write_bytes(content)
    with (place / VECTORS).open("wb") as file:
        if vectors is None:
            file.truncate(4 * _DIMENSION * count)
        else:
            vectors.tofile(file)
    contents[VECTORS] = bytes(4 * _DIMENSION * count) if vectors is None else vectors.tobytes()
    files = [FileInfo(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()]
    return SegmentInfo(place.name, count, first_id, tuple(files))


def made_up_path(id: int) -> str:
    """Path of an image in a made-up index."""
    return f"drive-{id // 1000:05d}/frame-{id % 1000:04d}.jpg"


def add_one(index: PlaceIndex, photos: Path, name: str) -> float:
    """Add one photo; returns the milliseconds of the processor that it took."""
    cv2.imwrite(str(photos / name), np.full((16, 16, 3), 127, np.uint8))
    started = process_time()
    report = index.add([ImageRecord(name)], BlankExtractor())
    assert report.added == 1, report
    return 1e3 * (process_time() - started)


def measure(images: int, repeats: int = 7, folder: Path | None = None) -> Row:
    """Make an index of so many images, add photos one by one, and delete it."""
    with TemporaryDirectory(prefix="vpr-dhe-benchmark-", dir=folder) as temporary:
        place, photos = Path(temporary) / "index", Path(temporary) / "photos"
        photos.mkdir()
        index = made_up_index(place, photos, images)
        add_one(index, photos, "warm-up.png")
        opened = [add_one(index, photos, f"opened-{number}.png") for number in range(repeats)]
        new: list[float] = []
        for number in range(repeats):
            started = process_time()
            index = PlaceIndex.open(place)
            opening = 1e3 * (process_time() - started)
            new.append(opening + add_one(index, photos, f"new-{number}.png"))
    return Row(images, median(opened), median(new))


def markdown(rows: Sequence[Row]) -> str:
    """Format all rows as a Markdown table."""
    lines = [[f"{row.images:,}", f"{row.opened_ms:.1f}", f"{row.new_process_ms:.1f}"] for row in rows]
    return table(["images", "opened, ms", "new process, ms"], lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the index is made; it is deleted afterwards")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    rows = [measure(images, folder=arguments.folder) for images in arguments.images]
    print(text := markdown(rows))
    (arguments.out / "growing.md").write_text(f"{text}\n")
    write_result(arguments.out / "growing.json", "growing", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
