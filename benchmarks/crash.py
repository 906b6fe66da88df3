"""Crash safety: kill the writer of an index at random moments, again and again, and check the index.

    python benchmarks/crash.py --kills 200 --out crash.json

In each round a child process changes an index: it indexes a folder, adds single images, replaces, removes and compacts,
and reports on a pipe each operation that begins and each that has returned, which acknowledges it. At a random moment
the child is killed with SIGKILL. Then the index is opened and must satisfy: all checksums agree; acknowledged images
are there, with the features of their files, and search finds them; removed images are not there; and indexing again
extracts exactly the missing images. The last rounds kill `vpr-dhe index` itself.

SIGKILL does not simulate a loss of power: for that, files and folders are synchronised before a manifest names them.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from measuring import write_result
from PIL import Image as PillowImage
from torch.nn.functional import normalize

from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.loading import image_size
from vpr_dhe.index import compaction, writer
from vpr_dhe.index.checking import check
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Features, Frame, Grid, Image, ImageRecord, Size

IMAGES = 300
# Small, so that a second is enough to seal and merge many segments.
SEGMENT_IMAGES = 16
MAX_LIFE_S = 1.2
COMMAND_LIFE_S = (6.0, 30.0)


class PixelExtractor(Extractor):
    """Extractor whose features are the pixels of a small image: quick, and different for every image."""

    def __init__(self) -> None:
        self.spec = ExtractorSpec("pixels", "pixels of 16 x 16", 768, 48, Grid(4, 4), Size(16, 16), True, 1.5)
        self.extracted = 0

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image."""
        self.extracted += len(images)
        return [self._extract_one(image) for image in images]

    def _extract_one(self, image: Image) -> Features:
        pixels = torch.from_numpy(image).float() - 127.5
        cells = pixels.reshape(4, 4, 4, 4, 3).permute(0, 2, 1, 3, 4).reshape(16, 48)
        frame = Frame(image_size(image), self.spec.input_size)
        return Features(pixels.flatten(), normalize(cells, dim=1), self.spec.grid, frame)


@dataclass
class Expectation:
    """Required content of an index: `present` for certain, `uncertain` perhaps, nothing else."""

    present: set[str] = field(default_factory=set)
    uncertain: set[str] = field(default_factory=set)

    def begin(self, operation: str, paths: Sequence[str]) -> None:
        """Note that an operation has begun; until it returns, its images may be there or not."""
        if operation in ("index", "add"):
            self.uncertain |= set(paths) - self.present
        elif operation == "remove":
            self.present -= set(paths)
            self.uncertain |= set(paths)

    def acknowledge(self, operation: str, paths: Sequence[str]) -> None:
        """Note that an operation has returned."""
        if operation in ("index", "add"):
            self.present |= set(paths)
        self.uncertain -= set(paths)


def write_image(path: Path, rng: np.random.Generator) -> None:
    """Write a unique small image atomically."""
    temporary = path.with_suffix(".part")
    PillowImage.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(temporary, "PNG")
    temporary.replace(path)


def change_index(folder: Path, images: Path, seed: int, messages: Connection) -> None:
    """Change an index until killed, and report the begin and return of each operation."""
    writer.SEGMENT_IMAGES = SEGMENT_IMAGES
    compaction.FAN_IN = 4
    rng, extractor = random.Random(seed), PixelExtractor()
    index = PlaceIndex.open(folder)
    names = sorted(path.name for path in images.glob("*.png"))
    while True:
        operation = rng.choice(["index", "add", "add", "replace", "remove", "compact"])
        known = {index.image(int(id)).path: int(id) for id in index.ids}
        if operation == "index":
            paths = rng.sample(names, rng.randint(1, len(names)))
        elif operation == "add":
            paths = rng.sample(names, rng.randint(1, 4))
        elif operation in ("remove", "replace"):
            paths = rng.sample(sorted(known), min(len(known), rng.choice([1, 3, 40])))
        else:
            paths = []
        messages.send(("begin", operation, paths))
        if operation == "remove":
            index.remove([known[path] for path in paths])
        elif operation == "compact":
            index.compact()
        else:
            if operation == "replace":
                for path in paths:
                    write_image(images / path, np.random.default_rng())
            index.add([ImageRecord(path) for path in paths], extractor, batch_size=4)
        messages.send(("done", operation, paths))


def run_and_kill(folder: Path, images: Path, seed: int, expected: Expectation) -> str:
    """Let a child change the index, kill it at a random moment, and return its current operation."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=change_index, args=(folder, images, seed, sender))
    child.start()
    sender.close()
    under_way = listen(receiver, random.Random(seed).uniform(0.0, MAX_LIFE_S), child, expected)
    child.join()
    if child.exitcode != -signal.SIGKILL:
        raise SystemExit(f"round {seed}: the writer ended by itself with exit code {child.exitcode}")
    return under_way


def listen(
    messages: Connection, life_s: float, child: multiprocessing.process.BaseProcess, expected: Expectation
) -> str:
    """Record the messages of a child, which lives for `life_s` from the first one on."""
    under_way, deadline = "open", None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.perf_counter())
        if messages.poll(left):
            try:
                word, operation, paths = messages.recv()
            except EOFError:
                return under_way
            deadline = deadline or time.perf_counter() + life_s
            (expected.begin if word == "begin" else expected.acknowledge)(operation, paths)
            under_way = operation if word == "begin" else "between"
        else:
            # Messages sent before the child dies are read after this, up to the end of the pipe.
            child.kill()
            deadline = time.perf_counter() + 3600


def require(condition: bool, seed: int, what: str) -> None:
    """Exit with the round at the first violated condition."""
    if not condition:
        raise SystemExit(f"round {seed}: {what}")


def inspect(folder: Path, images: Path, seed: int, expected: Expectation) -> int:
    """Compare the index with what was acknowledged, resume, and return the number of images extracted then."""
    require(check(folder).damaged == (), seed, f"damaged: {check(folder).damaged}")
    index, extractor = PlaceIndex.open(folder), PixelExtractor()
    paths = {index.image(int(id)).path: int(id) for id in index.ids}
    require(len(paths) == len(index), seed, "a path is there twice")
    lost, surplus = expected.present - paths.keys(), paths.keys() - expected.present - expected.uncertain
    require(not lost, seed, f"{len(lost)} acknowledged images are lost, such as {min(lost, default='')}")
    require(not surplus, seed, f"{len(surplus)} images are there that should not be")
    wanted = [ImageRecord(path) for path in sorted(expected.present | expected.uncertain)]
    changed = [path for path, id in paths.items() if not index.snapshot.stamp(id).matches(images / path)]
    report = index.add(wanted, extractor)
    require(
        extractor.extracted == len(wanted) - len(paths) + len(changed) == report.added + report.replaced,
        seed,
        f"resuming extracted {extractor.extracted} images where {len(wanted) - len(paths)} were missing and "
        f"{len(changed)} had changed",
    )
    if wanted:
        compare_features(index, images, seed)
    expected.present, expected.uncertain = {record.path for record in wanted}, set()
    return extractor.extracted


def compare_features(index: PlaceIndex, images: Path, seed: int) -> None:
    """Check that search finds every image by its own features, and that they are stored."""
    extractor, ids = PixelExtractor(), index.ids
    extracted = extractor.extract([decode_image(images / index.image(int(id)).path) for id in ids])
    vectors = normalize(torch.stack([features.global_descriptor for features in extracted]), dim=1)
    maps = torch.stack([features.local_map for features in extracted])
    require(bool((index.descriptors(ids) == vectors).all()), seed, "a stored vector is not its image's")
    require(bool((index.local_maps(ids) - maps).abs().max() < 1e-3), seed, "a stored map is not its image's")
    require(bool((index.search(vectors, 1).ids[:, 0] == ids).all()), seed, "an image is not found by its own vector")


def kill_command(folder: Path, images: Path, seed: int) -> int:
    """Kill `vpr-dhe index` at a random moment, open the index, and return its number of images."""
    command = [sys.executable, "-m", "vpr_dhe", "index", str(images), "--out", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(random.Random(seed).uniform(*COMMAND_LIFE_S))
    child.kill()
    child.wait()
    if not PlaceIndex.has_images(folder):
        return 0
    require(check(folder).damaged == (), seed, "`vpr-dhe index` left damage behind")
    return len(PlaceIndex.open(folder))


def measure_api(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Run the rounds that kill a program of the library."""
    images, index_folder = folder / "images", folder / "index"
    images.mkdir(parents=True)
    for number in range(IMAGES):
        write_image(images / f"{number:04d}.png", np.random.default_rng(number))
    PlaceIndex.create(index_folder, PixelExtractor().spec, images, codec="float16")
    expected, at, extracted = Expectation(), Counter[str](), []
    for number in range(seed, seed + kills):
        at[run_and_kill(index_folder, images, number, expected)] += 1
        extracted.append(inspect(index_folder, images, number, expected))
    segments = len(PlaceIndex.open(index_folder).manifest.segments)
    return {"kills": kills, "killed_at": dict(at), "extracted_by_resuming": sum(extracted), "segments": segments}


def measure_command(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Run the rounds that kill the command; sealed images may only grow in number."""
    images = folder / "photos"
    images.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(1500):
        coarse = PillowImage.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((320, 240), PillowImage.Resampling.BICUBIC).save(images / f"{number:04d}.jpg")
    kept = [kill_command(folder / "by-command", images, seed + number) for number in range(kills)]
    require(kept == sorted(kept), seed, f"images were lost between rounds: {kept}")
    return {"kills": kills, "images_after_each": kept}


def main() -> None:
    """Kill, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="rounds with a program of the library")
    parser.add_argument("--command-kills", type=int, default=10, help="rounds with `vpr-dhe index`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    arguments = parser.parse_args()
    # Imports would take up the short life of a fresh child.
    heavy = ["torch", "PIL.Image", "vpr_dhe.index.place_index", "vpr_dhe.index.checking"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(heavy)
    folder = Path(tempfile.mkdtemp(prefix="vpr-dhe-crash-"))
    try:
        result = {
            "library": measure_api(folder / "library", arguments.kills, arguments.seed),
            "command": measure_command(folder / "command", arguments.command_kills, arguments.seed),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))
    write_result(arguments.out, "crash", result)


if __name__ == "__main__":
    main()
