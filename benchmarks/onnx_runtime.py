"""Speed, numerical difference and agreement in ranking of a model in torch and in ONNX.

    python benchmarks/onnx_runtime.py PLACES

takes evenly spread queries and database images of a place data set, and writes `benchmarks/results/onnx_runtime.md` and
`onnx_runtime.json`:

- speed: the median of ms per image to extract decoded images, preprocessing included, one at a time and in batches;
  both runtimes take turns, on the number of threads of torch;
- difference: the maximum over queries of the norm of the difference, relative to the norm in torch, of global
  descriptors and local maps;
- agreement: the number of queries with the same first 20 images in the same order, by retrieval alone and re-ranked, in
  one index made in torch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from fine_flow import table
from measuring import RESULTS, write_result

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.export.exporting import export_model
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images import decode_named
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Image

BATCHES = (1, 8)
VERIFIERS = ("none", "magsac", "dhe-lite")
RANKS = 20
_TORCH, _ONNX = "torch", "onnx"


def spread(items: Sequence, count: int) -> list:
    """Choose evenly spread items."""
    return [items[number * len(items) // count] for number in range(min(count, len(items)))]


def ms_per_image(extractors: dict[str, Extractor], images: list[Image], batch: int, rounds: int) -> dict[str, float]:
    """Measure the median for each extractor, in turns, so that other work on the machine affects all alike."""
    found: dict[str, list[float]] = {name: [] for name in extractors}
    for turn in range(rounds + 1):
        start = turn * batch % (len(images) - batch + 1)
        for name, extractor in extractors.items():
            started = perf_counter()
            extractor.extract(images[start : start + batch])
            found[name].append(1e3 * (perf_counter() - started) / batch)
    return {name: median(times[1:]) for name, times in found.items()}  # the first turn is a warm-up


def differences(extractors: dict[str, Extractor], images: list[Image]) -> dict[str, float]:
    """Compute the maximum relative difference of global descriptors and of local maps."""
    found = {"vector": 0.0, "local map": 0.0}
    for image in images:
        one, other = (extractor.extract([image])[0] for extractor in extractors.values())
        for name, in_torch, in_onnx in (
            ("vector", one.global_descriptor, other.global_descriptor),
            ("local map", one.local_map, other.local_map),
        ):
            found[name] = max(found[name], float((in_torch - in_onnx).norm() / in_torch.norm()))
    return found


def agreement(index: Path, models: dict[str, str], images: list[Image]) -> dict[str, int]:
    """Count the queries with equal rankings in both runtimes, by verifier."""
    found = {}
    for verifier in VERIFIERS:
        rankings = []
        for model in models.values():
            localizer = Localizer.open(index, verifier=verifier, rerank=RANKS, model=model)
            answers = [localizer.localize(image, top_k=RANKS) for image in images]
            rankings.append([[match.image for match in answer.matches] for answer in answers])
        found[verifier] = sum(one == other for one, other in zip(*rankings, strict=True))
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", type=Path)
    parser.add_argument("--model", default="cct-offline")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--database", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    dataset = read_places(arguments.places, "auto", Protocol())
    queries, database = dataset.queries, dataset.database
    images = [decode_named(queries.folder / record.path) for record in spread(queries.records, arguments.queries)]
    with TemporaryDirectory() as scratch:
        folder, index = Path(scratch, "onnx"), Path(scratch, "index")
        export_model(arguments.model, folder)
        models = {_TORCH: arguments.model, _ONNX: str(folder)}
        extractors = {name: load_extractor(model) for name, model in models.items()}
        PlaceIndex.create(index, extractors[_TORCH].spec, database.folder).add(
            spread(database.records, arguments.database), extractors[_TORCH]
        )
        speed = {batch: ms_per_image(extractors, images, batch, arguments.rounds) for batch in BATCHES}
        apart, agreeing = differences(extractors, images), agreement(index, models, images)
    rows = [
        [str(batch), f"{ms[_TORCH]:.1f}", f"{ms[_ONNX]:.1f}", f"{ms[_TORCH] / ms[_ONNX]:.2f}"]
        for batch, ms in speed.items()
    ]
    tables = [
        table(["images at once", "torch, ms per image", "ONNX Runtime, ms per image", "ratio"], rows),
        table(["relative difference, at most"], [[f"{name}: {value:.1e}"] for name, value in apart.items()]),
        table(
            ["verifier", f"queries of {len(images)} with the same first {RANKS}"],
            [[verifier, str(count)] for verifier, count in agreeing.items()],
        ),
    ]
    text = "\n\n".join(tables)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "onnx_runtime.md").write_text(f"{text}\n")
    document = {
        "places": dataset.name,
        "model": arguments.model,
        "queries": len(images),
        "database": arguments.database,
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "ms_per_image": speed,
        "relative_difference": apart,
        "same_ranking": agreeing,
    }
    write_result(arguments.out / "onnx_runtime.json", "onnx_runtime", document)


if __name__ == "__main__":
    main()
