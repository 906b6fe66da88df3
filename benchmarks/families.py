"""Memory and images per second of each published family on a CPU, from made-up weights of full size.

    python benchmarks/families.py CHECKPOINTS --threads 1

CHECKPOINTS is a folder with `make_checkpoint.py` and one folder for each checkpoint, whose `shapes.json` describes it.
Each is written, imported, and run on a photo of 640 x 480 pixels, by torch and by ONNX Runtime, each in a process of
its own. Times are medians of several turns; the first one is a warm-up. Peak memory is that of the whole process,
Python and libraries included; the conversion for ONNX Runtime happens before, in another process. Speed and memory do
not depend on the values of weights. Writes `benchmarks/results/families.md` and `families.json`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from measuring import RESULTS, in_own_process, measured_memory, seconds, table, write_result

from vpr_dhe.runtime.choices import Runtime

PHOTO_PX = 640, 480
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")


@dataclass(frozen=True)
class Run:
    """Images per second and peak memory of one runtime."""

    images_per_s: float
    peak_mb: float


@dataclass(frozen=True)
class Facts:
    """Family and sizes of an imported model."""

    family: str
    dimension: int
    cells: int
    megabytes: float


@dataclass(frozen=True)
class Row:
    """Figures of one checkpoint, by runtime; a runtime that cannot run it is left out."""

    checkpoint: str
    facts: Facts
    runs: dict[str, Run]


def write_model(source: Path, folder: Path) -> Facts:
    """Write a made-up checkpoint, import it as `model.safetensors`, and remove it."""
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.models.importers import family_of, import_checkpoints

    make = [sys.executable, source.parent / "make_checkpoint.py", source / "shapes.json", folder]
    subprocess.run(make, check=True, capture_output=True)
    checkpoint = folder / json.loads((source / "shapes.json").read_text())["container"]["file"]
    imported, family = folder / "imported.safetensors", family_of([checkpoint])
    import_checkpoints(family, [checkpoint]).save(imported)
    checkpoint.unlink()
    model = imported.replace(folder / "model.safetensors")
    spec = load_extractor(str(model), runtime="torch").spec
    return Facts(family, spec.dimension, spec.grid.rows * spec.grid.columns, model.stat().st_size / 1e6)


def convert(model: Path) -> bool:
    """Convert a model for ONNX Runtime, for later processes; false if that is not possible."""
    from vpr_dhe.errors import VprDheError
    from vpr_dhe.features.extractor import load_extractor

    try:
        load_extractor(str(model), runtime="onnx")
    except VprDheError as error:
        print(f"not in ONNX Runtime: {error}", file=sys.stderr)
        return False
    return True


def run(model: Path, runtime: Runtime, threads: int, turns: int) -> Run:
    """Extract a photo several times."""
    import torch

    from vpr_dhe.features.extractor import load_extractor

    torch.set_num_threads(threads)
    width, height = PHOTO_PX
    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    with measured_memory() as memory:
        extractor = load_extractor(str(model), runtime=runtime)
        times = [seconds(lambda: extractor.extract([photo])) for _ in range(turns + 1)]
        return Run(1 / median(times[1:]), memory().peak_mb)


def is_importable(source: Path) -> bool:
    """Whether the tensors are those of a family, judged by their shapes alone."""
    from vpr_dhe.models.importers import FAMILIES, load_importer

    tensors = json.loads((source / "shapes.json").read_text())["tensors"]
    shapes = {name: tuple(shape) for name, (_, shape) in tensors.items()}
    return any(load_importer(family).recognises(shapes) for family in FAMILIES)


def measure(source: Path, runtimes: Sequence[Runtime], threads: int, turns: int) -> Row:
    """Measure one checkpoint."""
    with TemporaryDirectory(prefix="vpr-dhe-families-") as folder:
        model = Path(folder, "model.safetensors")
        facts = in_own_process(write_model, source, Path(folder))
        able = [one for one in runtimes if one != "onnx" or in_own_process(convert, model)]
        return Row(source.name, facts, {one: in_own_process(run, model, one, threads, turns) for one in able})


def families_table(rows: Sequence[Row]) -> str:
    """Format what was measured."""
    none = Run(float("nan"), float("nan"))
    cells = []
    for row in rows:
        torch_run, onnx_run = (row.runs.get(runtime, none) for runtime in RUNTIMES)
        facts = row.facts
        sizes = [row.checkpoint, facts.family, str(facts.dimension), f"{facts.cells:,}", f"{facts.megabytes:,.0f}"]
        numbers = [f"{one.images_per_s:.2f}" for one in (torch_run, onnx_run)]
        numbers += [f"{one.peak_mb:,.0f}" for one in (torch_run, onnx_run)]
        cells.append([*sizes, *("" if number == "nan" else number for number in numbers)])
    sizes_header = ["checkpoint", "kind", "dimension", "cells", "weights, MB"]
    return table([*sizes_header, "images/s, torch", "ONNX Runtime", "peak MB, torch", "ONNX Runtime"], cells)


def main() -> None:
    """Measure, print and write after each checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="folders to measure")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    sources = [path.parent for path in sorted(arguments.checkpoints.glob("*/shapes.json"))]
    chosen = [path for path in sources if path.name in arguments.only or not arguments.only]
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with TemporaryDirectory(prefix="vpr-dhe-families-cache-") as cache:
        os.environ["VPR_DHE_CACHE"] = cache  # converted networks are of no use afterwards
        for source in filter(is_importable, chosen):
            rows.append(measure(source, arguments.runtimes, arguments.threads, arguments.turns))
            print(families_table(rows[-1:]), flush=True)
            (arguments.out / "families.md").write_text(f"{families_table(rows)}\n")
            document = {
                "threads": arguments.threads,
                "turns": arguments.turns,
                "photo_px": PHOTO_PX,
                "families": [asdict(row) for row in rows],
            }
            write_result(arguments.out / "families.json", "families", document)


if __name__ == "__main__":
    main()
