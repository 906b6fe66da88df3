"""What a query takes in memory does not depend on how many images are indexed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.ingest import ExtractedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.rows import Digest, FileStamp
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.records import Features, Frame, Grid, ImageRecord, Size

# 2 KB of vector and 2 KB of local map each: to copy either would take 14 MB more for 8000 images than for 1000.
SPEC = ExtractorSpec("synthetic", "synthetic", 512, 16, Grid(8, 8), Size(128, 128), True, 1.5)
COUNTS = (1000, 8000)
# Search takes 20 bytes per image while it compares, for up to half a million of them at a time.
BOUND_MB = 2.0

ASK = """
import sys, threading, time
from pathlib import Path
import numpy as np, torch
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.features.base import Extractor
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Features, Frame, Size
from vpr_dhe.verification.build import build_verifier

class Fixed(Extractor):
    def __init__(self, spec):
        self.spec = spec
    def extract(self, images):
        random = torch.Generator().manual_seed(1)
        cells = torch.nn.functional.normalize(torch.randn(64, 16, generator=random), dim=1)
        vector = torch.randn(512, generator=random)
        return [Features(vector, cells, self.spec.grid, Frame(Size(64, 64), self.spec.input_size)) for _ in images]

def private_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

def watch():
    while not done.wait(0.001):
        peaks.append(private_mb())

index = PlaceIndex.open(Path(sys.argv[1]))
extractor = Fixed(index.spec)
verifier = build_verifier("magsac", Resources(None))
done, peaks = threading.Event(), []
watching = threading.Thread(target=watch)
watching.start()
localizer = Localizer(VerifiedIndex(index, verifier), extractor)
for _ in range(10):
    assert len(localizer.localize(np.zeros((64, 64, 3), np.uint8)).matches) == 5
done.set()
watching.join()
print(max(peaks))
"""


def synthetic_index(folder: Path, count: int) -> Path:
    """An index of random features; there are no images behind it."""
    random = torch.Generator().manual_seed(0)
    vectors = normalize(torch.randn(count, SPEC.dimension, generator=random), dim=1)
    cells = normalize(torch.randn(100, 64, SPEC.local_dimension, generator=random), dim=2)
    frame, stamp = Frame(Size(64, 64), SPEC.input_size), FileStamp(1, 1, Digest(0, 0))
    index = PlaceIndex.create(folder, SPEC, folder.parent, codec="float16", index_type="flat")
    with index.writing() as writer:
        for first in range(0, count, 1000):
            writer.add_extracted(
                [
                    ExtractedImage(
                        place,
                        IndexedImage(ImageRecord(f"{first + place:05d}.jpg"), frame.image_size),
                        stamp,
                        Features(vector, cells[place % len(cells)], SPEC.grid, frame),
                    )
                    for place, vector in enumerate(vectors[first : first + 1000])
                ]
            )
    return folder


@pytest.mark.slow
def test_a_query_takes_as_much_memory_among_eight_times_as_many_images(tmp_path):
    peaks_mb = []
    for count in COUNTS:
        folder = synthetic_index(tmp_path / str(count), count)
        asked = subprocess.run(
            [sys.executable, "-c", ASK, folder],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert asked.returncode == 0, asked.stderr
        peaks_mb.append(float(asked.stdout))
    assert peaks_mb[1] - peaks_mb[0] < BOUND_MB, peaks_mb
