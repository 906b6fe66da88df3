"""Throughput of indexing, compared with decoding alone and with the network alone.

    python benchmarks/extraction.py IMAGES --models cct-offline sift-vlad --runtimes onnx torch --workers 0 2

Networks run in the runtimes of `--runtimes`, in bf16 in torch alone. `index` is `PlaceIndex.add`, from files to sealed
segments, into an index whose codec was chosen on earlier images, with fresh worker processes. `decoding` is reading and
decoding alone, `network` extraction of the same batches of random tensors (decoded photos if a model is not a network
in torch) alone. All three are measured in turns, so that other work on the machine affects all alike. On a CPU both
share the cores: `together` is the throughput of decoding each image and then extracting it. With bf16, its features are
compared with those of fp32. On a machine that does other work, `--processor-time` counts images per second of one core.
Writes `benchmarks/results/extraction.md` and `extraction.json`.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import torch
from measuring import RESULTS, seconds, write_result

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.images.decoding import decode_image, decode_reduced
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.ingest import Source, load, reading
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.models.names import CCT_OFFLINE, LITE_VLAD, SIFT_VLAD
from vpr_dhe.records import Image, ImageRecord
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.runtime.threads import in_parallel

# For the choice of the codec, and to warm up lazy parts.
_FIRST = 64
_COMPARED = 64


@dataclass(frozen=True)
class Row:
    """Images per second, and the shares of the lower limit and of both limits together that `index` reaches."""

    model: str
    runtime: str
    precision: str
    workers: int
    index: float
    decoding: float
    network: float

    @property
    def share(self) -> float:
        """Share of the lower limit."""
        return self.index / min(self.decoding, self.network)

    @property
    def together(self) -> float:
        """Throughput of cores that decode and extract."""
        return 1 / (1 / self.decoding + 1 / self.network)


@dataclass(frozen=True)
class Agreement:
    """Cosines between features of the same photos in bf16 and in fp32."""

    model: str
    least_of_vectors: float
    mean_of_vectors: float
    mean_of_cells: float
    lowest_percent_of_cells: float
    same_nearest_share: float


@dataclass(frozen=True)
class Work:
    """Images, model and settings of a measurement."""

    folder: Path
    records: Sequence[ImageRecord]
    extractor: Extractor
    batch_size: int
    workers: int
    clock: Callable[[], float] = perf_counter


def measure(work: Work, repeats: int) -> tuple[float, float, float]:
    """Measure the images per second of indexing, decoding and the network; medians."""
    network = extraction(work)
    with TemporaryDirectory(prefix="vpr-dhe-extraction-") as name, reading(work.workers) as read_ahead:
        begun = Path(name) / "begun"
        index = PlaceIndex.create(begun, work.extractor.spec, work.folder, index_type="flat")
        index.add(work.records[:_FIRST], work.extractor, batch_size=work.batch_size)
        folders = ImageFolders(str(work.folder.resolve()))
        source = Source(folders, work.extractor, work.batch_size, read_ahead=read_ahead)
        turns = [
            (
                indexing_seconds(work, begun, Path(name) / "index"),
                seconds(lambda: [None for _ in load(source, work.records[_FIRST:])], work.clock),
                seconds(network, work.clock),
            )
            for _ in range(repeats + 1)
        ]
    count = len(work.records) - _FIRST
    indexing_s, decoding_s, network_s = (median(times) for times in zip(*turns[1:], strict=True))
    return count / indexing_s, count / decoding_s, count / network_s


def indexing_seconds(work: Work, begun: Path, folder: Path) -> float:
    """Time adding all but the first images to a copy of an index of the first."""
    shutil.copytree(begun, folder)
    index = PlaceIndex.open(folder)
    add = partial(index.add, batch_size=work.batch_size, workers=work.workers)
    taken = seconds(lambda: add(work.records, work.extractor), work.clock)
    shutil.rmtree(folder)
    return taken


def extraction(work: Work) -> Callable[[], object]:
    """Return a function that extracts as many images as are indexed, from memory."""
    count, generator = len(work.records) - _FIRST, torch.Generator().manual_seed(0)
    sizes = [min(work.batch_size, count - first) for first in range(0, count, work.batch_size)]
    if not isinstance(work.extractor, NeuralExtractor):
        input_size = work.extractor.spec.input_size
        images = [decode_reduced(work.folder / one.path, input_size).image for one in work.records[: work.batch_size]]
        return lambda: [work.extractor.extract(images[:size]) for size in sizes]
    extractor, side = work.extractor, work.extractor.spec.input_size
    batch = torch.randn(work.batch_size, 3, side.height, side.width, generator=generator).to(extractor.device)

    def extract() -> None:
        for size in sizes:
            parts = [batch[part.start : part.stop] for part in extractor.split(range(size))]
            extracted = in_parallel(extractor.extract_batch, parts)
        extracted[-1].vectors.cpu()  # waits for the GPU

    return extract


def agreement(model: str, device: str, photos: Sequence[Image]) -> Agreement:
    """Compare features of photos in both precisions."""
    vectors, cells = [], []
    for precision in ("fp32", "bf16"):
        extractor = load_extractor(model, device, precision=precision)
        features = [extractor.extract([photo])[0] for photo in photos]
        vectors.append(torch.nn.functional.normalize(torch.stack([one.global_descriptor for one in features]), dim=1))
        cells.append(torch.stack([one.local_map for one in features]))
    cosines, cell_cosines = (vectors[0] * vectors[1]).sum(dim=1), (cells[0] * cells[1]).sum(dim=2).flatten()
    apart = 2 * torch.eye(len(photos), device=vectors[0].device)  # a photo is not its own neighbour
    of_full, of_mixed = ((queries @ vectors[0].mT - apart).argmax(dim=1) for queries in vectors)
    return Agreement(
        model,
        cosines.min().item(),
        cosines.mean().item(),
        cell_cosines.mean().item(),
        cell_cosines.kthvalue(max(1, len(cell_cosines) // 100)).values.item(),
        (of_full == of_mixed).float().mean().item(),
    )


def markdown(rows: Sequence[Row], agreements: Sequence[Agreement]) -> str:
    """Format both tables."""
    header = [
        "model",
        "runtime",
        "precision",
        "workers",
        "index",
        "decoding",
        "network",
        "of the smaller",
        "together",
        "of it",
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        rates = (f"{rate:.1f}" for rate in (row.index, row.decoding, row.network))
        shares = (f"{row.share:.2f}", f"{row.together:.1f}", f"{row.index / row.together:.2f}")
        lines.append([row.model, row.runtime, row.precision, str(row.workers or "threads"), *rates, *shares])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    for one in agreements:
        text += (
            f"\n\n{one.model}, bf16 against fp32, {_COMPARED} photos: cosines of vectors {one.least_of_vectors:.5f} at "
            f"least and {one.mean_of_vectors:.5f} on average, of cells {one.mean_of_cells:.5f} on average, 1 % of them "
            f"below {one.lowest_percent_of_cells:.5f}; the same nearest photo for {100 * one.same_nearest_share:.0f} %"
        )
    return text


def repeats_another(model: str, runtime: str, precision: str, runtimes: Sequence[str]) -> bool:
    """Whether a combination is meaningless, or the same as one with another runtime."""
    if model == SIFT_VLAD and precision != "fp32":
        return True
    return (model == SIFT_VLAD or precision != "fp32") and runtime != runtimes[0]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--models", nargs="+", default=[LITE_VLAD, CCT_OFFLINE, SIFT_VLAD])
    parser.add_argument("--runtimes", nargs="+", choices=["auto", "torch", "onnx"], default=["auto"])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument(
        "--workers", nargs="+", type=int, default=[0], help="number of processes that decode; 0 uses threads"
    )
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--count", type=int, default=128, help=f"of images, after {_FIRST} that are not timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--processor-time", action="store_true", help="count the time of this process alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    records = read_split(arguments.images).records
    records = [records[place] for place in evenly_spread(len(records), _FIRST + arguments.count)]
    clock = process_time if arguments.processor_time else perf_counter
    rows: list[Row] = []
    for model, runtime, precision in product(arguments.models, arguments.runtimes, arguments.precisions):
        if repeats_another(model, runtime, precision, arguments.runtimes):
            continue
        compiled = arguments.compile and model != SIFT_VLAD
        extractor = load_extractor(
            model,
            arguments.device,
            precision=precision,
            compiled=compiled,
            runtime=AUTO if model == SIFT_VLAD or precision != "fp32" else runtime,
        )
        named = "" if model == SIFT_VLAD else "torch" if isinstance(extractor, NeuralExtractor) else "onnx"
        for workers in arguments.workers:
            work = Work(arguments.images, records, extractor, arguments.batch_size, workers, clock)
            rows.append(Row(model, named, precision, workers, *measure(work, arguments.repeats)))
    photos = [decode_image(arguments.images / record.path) for record in records[:_COMPARED]]
    networks = [model for model in arguments.models if model != SIFT_VLAD and "bf16" in arguments.precisions]
    agreements = [agreement(model, arguments.device, photos) for model in networks]
    settings: dict[str, Any] = {
        "images": arguments.count,
        "repeats": arguments.repeats,
        "batch size": arguments.batch_size,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "compiled": arguments.compile,
        "clock": "processor" if arguments.processor_time else "wall",
    }
    summary = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(table := f"Images per second; {summary}\n\n{markdown(rows, agreements)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "extraction.md").write_text(f"{table}\n")
    document = settings | {
        "rows": [{**asdict(row), "share": row.share, "together": row.together} for row in rows],
        "agreement": [asdict(one) for one in agreements],
    }
    write_result(arguments.out / "extraction.json", "extraction", document)


if __name__ == "__main__":
    main()
