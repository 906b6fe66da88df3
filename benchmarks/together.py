"""Consistency of an index with two readers and one writer at once, each in its own process.

    python benchmarks/together.py --seconds 60

The writer adds, replaces, removes and compacts without a pause. The readers refresh, search and read, and compare the
results with features of the image files: every image has two known versions, so a vector, a local map or a path of
another image is detected. Searches are compared with NumPy over all vectors of the same state.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from crash import PixelExtractor, write_image
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index import compaction, writer
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import ImageRecord

IMAGES = 200
VERSIONS = 2


def name_of(number: int) -> str:
    """Return the path of an image."""
    return f"{number:04d}.png"


def write_version(images: Path, number: int, version: int) -> None:
    """Write one version of an image."""
    write_image(images / name_of(number), np.random.default_rng([number, version]))


def known_features(images: Path) -> tuple[Float[Tensor, "images versions dimension"], Float[Tensor, "i v cells d"]]:
    """Extract global descriptors and local maps of all versions of all images."""
    extractor = PixelExtractor()
    vectors, maps = [], []
    for number in range(IMAGES):
        for version in reversed(range(VERSIONS)):
            write_version(images, number, version)
            features = extractor.extract([decode_image(images / name_of(number))])[0]
            vectors.append(normalize(features.global_descriptor, dim=0))
            maps.append(features.local_map)
    shape = (IMAGES, VERSIONS, -1)
    return torch.stack(vectors).reshape(shape), torch.stack(maps).reshape(*shape[:2], 16, 48)


def write(folder: Path, images: Path, seconds: float, sender: Connection) -> None:
    """Change the index until the time is over."""
    writer.SEGMENT_IMAGES = 16
    compaction.FAN_IN = 4
    rng, extractor, done = random.Random(1), PixelExtractor(), Counter[str]()
    index = PlaceIndex.open(folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        operation = rng.choice(["add", "add", "replace", "remove", "compact"])
        numbers = rng.sample(range(IMAGES), rng.choice([1, 5, 60]))
        if operation == "compact":
            index.compact()
        elif operation == "remove":
            known = [index.find(name_of(number)) for number in numbers]
            index.remove([id for id in known[: max(0, len(index) - 20)] if id is not None])
        else:
            if operation == "replace":
                for number in numbers:
                    write_version(images, number, rng.randrange(VERSIONS))
            index.add([ImageRecord(name_of(number)) for number in numbers], extractor)
        done[operation] += 1
    sender.send(dict(done))


def read(folder: Path, vectors: Tensor, maps: Tensor, seconds: float, sender: Connection) -> None:
    """Search the index until the time is over, or until the first wrong result."""
    torch.set_num_threads(1)
    seed = multiprocessing.current_process().pid or 0
    rng, done = random.Random(seed), Counter[str]()
    index = PlaceIndex.open(folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done["states"] += index.refresh()
        compare(index.snapshot, vectors, maps, rng)
        done["answers"] += 1
    sender.send(dict(done))


def compare(snapshot: Snapshot, vectors: Tensor, maps: Tensor, rng: random.Random) -> None:
    """Compare one search, and the stored features of its images, with those of the files."""
    number, version = rng.randrange(IMAGES), rng.randrange(VERSIONS)
    query = vectors[number, version][None]
    found = snapshot.search(query, 10)
    ids = found.ids[0].tolist()
    stored = snapshot.descriptors(snapshot.ids) @ query[0]
    best = np.sort(stored.numpy())[::-1][: len(ids)]
    if not np.allclose(found.similarities[0], best, atol=1e-5):
        raise SystemExit(f"the search found {found.similarities[0]}, and the best are {best}")
    for id, vector, local_map in zip(ids, snapshot.descriptors(ids), snapshot.local_maps(ids), strict=True):
        owner = int(Path(snapshot.image(id).path).stem)
        fits = [bool((vectors[owner, v] == vector).all()) for v in range(VERSIONS)]
        if not any(fits) or (maps[owner, fits.index(True)] - local_map).abs().max() > 1e-3:
            raise SystemExit(f"image {id} of {snapshot.image(id).path} has the features of another")


def main() -> None:
    """Run all processes at once, and print their counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-together-") as name:
        folder, images = Path(name) / "index", Path(name) / "images"
        images.mkdir()
        vectors, maps = known_features(images)
        index = PlaceIndex.create(folder, PixelExtractor().spec, images, codec="float16")
        index.add([ImageRecord(name_of(number)) for number in range(IMAGES // 2)], PixelExtractor())
        work = [(write, (folder, images)), (read, (folder, vectors, maps)), (read, (folder, vectors, maps))]
        running = []
        for role, given in work:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=role, args=(*given, arguments.seconds, sender))
            process.start()
            sender.close()
            running.append((role.__name__, process, receiver))
        results = [(role, process.join(), process.exitcode, receiver) for role, process, receiver in running]
        if any(exitcode for _, _, exitcode, _ in results):
            raise SystemExit("a wrong answer, or a crash: see above")
        print(json.dumps([{"role": role} | receiver.recv() for role, _, _, receiver in results], indent=2))


if __name__ == "__main__":
    main()
