"""Peak memory of indexing by number of images.

    python benchmarks/memory.py --counts 2000 8000 32000 --out memory.json

Small images are decoded from files and get random features of the usual size (384 numbers, and a local map of 24 x 24
x 128), so only the work of a network is missing. Each count runs in a fresh process. Only the names of the images
should grow with their number.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import Memory, in_own_process, measured_memory, write_result
from torch.nn.functional import normalize

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.images.loading import image_size
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Features, Frame, Grid, Image, Size
from vpr_dhe.report.tables.text import text_table

SIDE_PX = 16


@dataclass(frozen=True)
class Indexing:
    """Memory and time of indexing a number of images."""

    images: int
    seconds: float
    disk_mb: float
    memory: Memory


class RandomFeatures(Extractor):
    """Extractor of random features of the usual size, seeded by the image."""

    def __init__(self) -> None:
        self.spec = ExtractorSpec("random", "random", 384, 128, Grid(24, 24), Size(SIDE_PX, SIDE_PX), True, 1.5)

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Make features of each image from its pixels as a seed."""
        return [self._extract_one(image) for image in images]

    def _extract_one(self, image: Image) -> Features:
        random = torch.Generator().manual_seed(int(image.astype(np.int64).sum()))
        local_map = normalize(torch.rand(576, 128, generator=random), dim=1)
        frame = Frame(image_size(image), self.spec.input_size)
        return Features(torch.randn(384, generator=random), local_map, self.spec.grid, frame)


def write_images(folder: Path, count: int) -> None:
    """Write images of minimum size."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
        path.write_bytes(b"P6 %d %d 255\n" % (SIDE_PX, SIDE_PX) + pixels.tobytes())


def index_images(folder: Path, images: Path, count: int) -> Indexing:
    """Index all images, as `vpr-dhe index` does."""
    with measured_memory() as memory:
        started = time.perf_counter()
        extractor = RandomFeatures()
        index = PlaceIndex.create(folder, extractor.spec, images, index_type="flat")
        index.add(read_split(images).records, extractor)
        seconds = time.perf_counter() - started
        disk_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return Indexing(count, seconds, disk_mb, memory())


def measure(count: int, folder: Path | None) -> Indexing:
    """Index a number of images in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-memory-", dir=folder) as name:
        images = Path(name) / "images"
        write_images(images, count)
        return in_own_process(index_images, Path(name) / "index", images, count)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2_000, 8_000, 32_000])
    parser.add_argument("--folder", type=Path, help="folder of temporary files: up to 75 KB per image")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    arguments = parser.parse_args()
    measured = [measure(count, arguments.folder) for count in sorted(arguments.counts)]
    rows = [
        [f"{number:,.0f}" for number in (one.images, one.seconds, one.disk_mb, *asdict(one.memory).values())]
        for one in measured
    ]
    print(text_table(["images", "s", "MB on disk", "peak MB", "private MB"], rows))
    first, last = measured[0], measured[-1]
    if last.images > first.images:
        growth_mb = last.memory.peak_private_mb - first.memory.peak_private_mb
        print(f"{1e3 * growth_mb / (last.images - first.images):.2f} KB of private memory per further image")
    write_result(arguments.out, "memory", {"indexing": [asdict(one) for one in measured]})


if __name__ == "__main__":
    main()
