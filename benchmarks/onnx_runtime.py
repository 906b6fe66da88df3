"""Speed, numerical difference and agreement in ranking of networks in torch and in ONNX Runtime, on a CPU.

    python benchmarks/onnx_runtime.py PLACES --models lite-vlad cct-offline

takes evenly spread queries and database images of a place data set, and writes `benchmarks/results/onnx_runtime.md` and
`onnx_runtime.json`:

- speed: the median of ms per image to extract decoded images, preprocessing included, one at a time and in batches, by
  torch (in fp32, and in bf16 if the processor has instructions for it), by ONNX Runtime, and by the extractor of a
  baseline; all take turns, on each number of threads;
- difference: the maximum over queries of the norm of the difference, relative to the norm in torch, of global
  descriptors and local maps;
- agreement: the number of queries with the same first 20 images in the same order, by retrieval alone and re-ranked, in
  one index made in torch;
- int8, with `--int8`: speed on one thread, cosines and R@1 of convolutions in 8 bits, quantised with photos of the
  database; this ships nowhere. Needs the extra `export`.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from measuring import RESULTS, table, write_result
from torch.nn.functional import normalize

from vpr_dhe.datasets import PlaceDataset, Protocol, read_places
from vpr_dhe.export.exporting import export_model
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.onnx_extractor import OnnxExtractor
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.models.names import CCT_OFFLINE, LITE_VLAD, SIFT_VLAD
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Image
from vpr_dhe.runtime.choices import Runtime
from vpr_dhe.runtime.cpu_features import has_bfloat16_products
from vpr_dhe.runtime.sampling import evenly_spread

BATCHES = (1, 8)
VERIFIERS = ("none", "magsac")
RANKS = 20
_TORCH, _BF16, _ONNX = "torch", "torch bf16", "ONNX Runtime"
_CALIBRATED_ON = 32


@dataclass(frozen=True)
class Speed:
    """Medians of ms per image of one model, by runtime."""

    model: str
    threads: int
    batch: int
    ms: dict[str, float]


@dataclass(frozen=True)
class Quantised:
    """A network in 8 bits and in single precision: ms per image, cosines of vectors and cells, and R@1 in %."""

    model: str
    ms: dict[str, float]
    cosine_of_vectors: float
    cosine_of_cells: float
    recall_at_1: dict[str, float]


def spread(items: Sequence, count: int) -> list:
    """Choose evenly spread items."""
    return [items[place] for place in evenly_spread(len(items), count, with_last=False)]


def runtimes(model: str) -> dict[str, Extractor]:
    """Load a model in all runtimes."""
    found = {_TORCH: load_extractor(model, runtime="torch")}
    if has_bfloat16_products(torch.device("cpu")):
        found[_BF16] = load_extractor(model, precision="bf16")
    return found | {_ONNX: load_extractor(model, runtime="onnx")}


def ms_per_image(
    extractors: dict[str, Extractor], images: Sequence[Image], batch: int, rounds: int
) -> dict[str, float]:
    """Measure the median for each extractor, in turns, so that other work on the machine affects all alike."""
    found: dict[str, list[float]] = {name: [] for name in extractors}
    for turn in range(rounds + 1):
        start = turn * batch % (len(images) - batch + 1)
        for name, extractor in extractors.items():
            started = perf_counter()
            extractor.extract(images[start : start + batch])
            found[name].append(1e3 * (perf_counter() - started) / batch)
    return {name: median(times[1:]) for name, times in found.items()}  # the first turn is a warm-up


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch, and so all of the package, use a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differences(one: Extractor, other: Extractor, images: Sequence[Image]) -> dict[str, float]:
    """Compute the maximum relative difference of global descriptors and of local maps."""
    found = {"vector": 0.0, "local map": 0.0}
    for image in images:
        (in_torch,), (in_onnx,) = one.extract([image]), other.extract([image])
        for name, expected, answer in (
            ("vector", in_torch.global_descriptor, in_onnx.global_descriptor),
            ("local map", in_torch.local_map, in_onnx.local_map),
        ):
            found[name] = max(found[name], float((expected - answer).norm() / expected.norm()))
    return found


def agreement(index: Path, images: Sequence[Image], verifiers: Sequence[str]) -> dict[str, int]:
    """Count the queries with equal rankings in both runtimes, by verifier."""
    asked: tuple[Runtime, ...] = ("torch", "onnx")
    found = {}
    for verifier in verifiers:
        rankings = []
        for runtime in asked:
            localizer = Localizer.open(index, verifier=verifier, rerank=RANKS, runtime=runtime)
            answers = [localizer.localize(image, top_k=RANKS) for image in images]
            rankings.append([[match.image for match in answer.matches] for answer in answers])
        found[verifier] = sum(one == other for one, other in zip(*rankings, strict=True))
    return found


def quantised(model: str, dataset: PlaceDataset, rounds: int) -> Quantised:
    """Quantise a network and compare it with single precision, on every fourth query."""
    assert dataset.positives is not None, f"{dataset.name} has no public ground truth"
    exact = load_extractor(model, runtime="onnx")
    database = [decode_named(dataset.database.folder / record.path) for record in dataset.database.records]
    queries = [decode_named(dataset.queries.folder / record.path) for record in dataset.queries.records[::4]]
    with TemporaryDirectory() as scratch:
        rounded = in_8_bits(model, spread(database, _CALIBRATED_ON), Path(scratch, "onnx"))
        extractors = {"fp32": exact, "int8": rounded}
        with threads(1):
            ms = ms_per_image(extractors, queries, 1, rounds)
        vectors, cells, recall = {}, {}, {}
        for name, extractor in extractors.items():
            of_database, of_queries = (
                [extractor.extract([image])[0] for image in images] for images in (database, queries)
            )
            stacked = [torch.stack([one.global_descriptor for one in each]) for each in (of_database, of_queries)]
            vectors[name], asked = (normalize(each, dim=1) for each in stacked)
            cells[name] = torch.stack([one.local_map for one in of_queries])
            nearest = (asked @ vectors[name].mT).argmax(dim=1).tolist()
            right = [place in dataset.positives[4 * number] for number, place in enumerate(nearest)]
            recall[name] = 100 * float(np.mean(right))
    return Quantised(
        model,
        ms,
        float((vectors["fp32"] * vectors["int8"]).sum(dim=1).mean()),
        float((cells["fp32"] * cells["int8"]).sum(dim=2).mean()),
        recall,
    )


def in_8_bits(model: str, photos: Sequence[Image], folder: Path) -> OnnxExtractor:
    """Quantise the convolutions of a model statically, with the ranges of activations on some photos."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    preprocessing = export_model(model, folder, "extractor").info.preprocessing
    inputs = iter([to_network_input([photo], preprocessing, torch.device("cpu")).numpy() for photo in photos])

    class Photos(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            photo = next(inputs, None)
            return None if photo is None else {"images": photo}

    quant_pre_process(str(folder / "extractor.onnx"), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(folder / "prepared.onnx"),
        str(folder / "int8.onnx"),
        Photos(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Add", "Clip"],
    )
    exact = load_extractor(model)
    return OnnxExtractor(exact.model_file, exact.spec, preprocessing, OnnxSession(folder / "int8.onnx"))


def speed_table(speeds: Sequence[Speed]) -> str:
    """Format the medians."""
    names = list(dict.fromkeys(name for speed in speeds for name in speed.ms))
    rows = [
        [speed.model, str(speed.threads), str(speed.batch)]
        + [f"{speed.ms[name]:.1f}" if name in speed.ms else "" for name in names]
        + [f"{speed.ms[_TORCH] / speed.ms[_ONNX]:.2f}"]
        for speed in speeds
    ]
    return table(
        ["model", "threads", "images at once", *(f"{name}, ms" for name in names), "torch / ONNX Runtime"], rows
    )


def int8_table(found: Sequence[Quantised]) -> str:
    """Format the comparison with 8 bits."""
    rows = [
        [
            one.model,
            *(f"{one.ms[name]:.1f}" for name in ("fp32", "int8")),
            f"{one.cosine_of_vectors:.4f}",
            f"{one.cosine_of_cells:.4f}",
            *(f"{one.recall_at_1[name]:.1f}" for name in ("fp32", "int8")),
        ]
        for one in found
    ]
    return table(
        ["model", "fp32, ms", "int8, ms", "cosine of vectors", "of cells", "R@1 of fp32", "of int8"],
        rows,
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", type=Path)
    parser.add_argument("--models", nargs="+", default=[LITE_VLAD, CCT_OFFLINE])
    parser.add_argument("--baseline", default=SIFT_VLAD, help="model in the same turns")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--database", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--int8", nargs="+", default=[], metavar="MODEL", help="models to quantise, too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    dataset = read_places(arguments.places, "auto", Protocol())
    queries, database = dataset.queries, dataset.database
    images = [decode_named(queries.folder / record.path) for record in spread(queries.records, arguments.queries)]
    speeds: list[Speed] = []
    apart, agreeing = {}, {}
    for model in arguments.models:
        extractors = runtimes(model)
        with_baseline = {**extractors, arguments.baseline: load_extractor(arguments.baseline)}
        for count in dict.fromkeys(arguments.threads):
            for batch in BATCHES:
                rounds = max(3, arguments.rounds // batch)
                with threads(count):
                    speeds.append(Speed(model, count, batch, ms_per_image(with_baseline, images, batch, rounds)))
        apart[model] = differences(extractors[_TORCH], extractors[_ONNX], images)
        with TemporaryDirectory() as scratch:
            index = PlaceIndex.create(Path(scratch, "index"), extractors[_TORCH].spec, database.folder)
            index.add(spread(database.records, arguments.database), extractors[_TORCH])
            head = extractors[_TORCH].model_file.architecture.head
            agreeing[model] = agreement(index.folder, images, (*VERIFIERS, head) if head else VERIFIERS)
    in_int8 = [quantised(model, dataset, arguments.rounds) for model in arguments.int8]
    tables = [
        speed_table(speeds),
        table(
            ["model", "relative difference of vectors, at most", "of local maps"],
            [[model, f"{found['vector']:.1e}", f"{found['local map']:.1e}"] for model, found in apart.items()],
        ),
        table(
            ["model", "verifier", f"queries of {len(images)} with the same first {RANKS}"],
            [[model, verifier, str(count)] for model, found in agreeing.items() for verifier, count in found.items()],
        ),
        *([int8_table(in_int8)] if in_int8 else []),
    ]
    text = "\n\n".join(tables)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "onnx_runtime.md").write_text(f"{text}\n")
    document = {
        "places": dataset.name,
        "queries": len(images),
        "database": arguments.database,
        "rounds": arguments.rounds,
        "ms_per_image": [asdict(speed) for speed in speeds],
        "relative_difference": apart,
        "same_ranking": agreeing,
        "int8": [asdict(one) for one in in_int8],
    }
    write_result(arguments.out / "onnx_runtime.json", "onnx_runtime", document)


if __name__ == "__main__":
    main()
