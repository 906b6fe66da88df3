"""Recall of published models beside the figures of their authors.

    python benchmarks/reproduce.py FOLDER_OF_DATA_SETS --models boq-dinov2 mixvpr-4096 --device cuda

Each data set of the folders, such as Pitts30k and MSLS, is searched with global descriptors alone: all distances,
nothing adapted, no re-ranking. `published_recall.toml` holds the figures, their sources, the protocols and the
tolerances. Models are fetched by name, or given as model files; those that cannot be fetched are listed with the
reason. Writes `reproduce.md` and `reproduce.json`, after each model. Exit codes: 0 all that was judged is within its
tolerance, 1 something is not, 2 nothing was measured. All descriptors are held in memory, at 4 bytes a number: 1 GB
for MSLS with a model of 8448 dimensions.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from data_sets import find
from jaxtyping import Float, Int64, UInt8
from measuring import RESULTS, table, write_result
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from vpr_dhe.datasets import LAYOUTS, Layout, PlaceDataset, Protocol, read_places
from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.errors import ImageError, VprDheError
from vpr_dhe.evaluation.recall import recall_at
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.index.vectors.types import PUBLISHED_CANDIDATES
from vpr_dhe.models.published import PUBLISHED
from vpr_dhe.records import Image
from vpr_dhe.runtime.prefetching import read_ahead

PUBLISHED_RECALL = Path(__file__).parent / "published_recall.toml"
RANKS = (1, 5, 10)
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class KnownProtocol:
    """Protocol of a data set for its published figures.

    Args:
        meaning: queries and positives in words.
        options: of `Protocol`.
        folders: beginnings of the names of its folder.
        layout: name of its layout, if that tells the data set.
        tolerance: largest difference of R@1, in points; None where figures of authors cannot be compared.
    """

    meaning: str
    options: Mapping[str, Any] = field(default_factory=dict)
    folders: Sequence[str] = ()
    layout: str | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Figure:
    """R@1 in percent that authors publish of a model, by name of the protocol."""

    model: str
    recall_at_1: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Published:
    """Content of a file like `published_recall.toml`."""

    protocols: Mapping[str, KnownProtocol]
    figures: Mapping[str, Figure]

    @classmethod
    def read(cls, path: Path) -> "Published":
        """Read the file."""
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        protocols = {name: KnownProtocol(**entry) for name, entry in content["protocols"].items()}
        return cls(protocols, {entry["model"]: Figure(**entry) for entry in content["figures"]})

    def protocol_of(self, folder: Path, layout: Layout) -> str | None:
        """Name of the protocol of a data set in a folder."""
        name = folder.resolve().name.lower()
        for key, protocol in self.protocols.items():
            if protocol.layout == layout.name or name.startswith(tuple(protocol.folders)):
                return key
        return None


@dataclass(frozen=True)
class Task:
    """A data set, and the name of its protocol if that is known."""

    dataset: PlaceDataset
    protocol: str | None


@dataclass(frozen=True)
class Row:
    """Recall of a model on a data set in percent, beside the published R@1 if there is one."""

    dataset: str
    protocol: str
    queries: int
    model: str
    recall: dict[int, float]
    published: float | None
    tolerance: float | None
    source: str

    @property
    def difference(self) -> float | None:
        """Ours minus the published one, in points; both have one digit."""
        return None if self.published is None else round(round(self.recall[1], 1) - self.published, 1)

    @property
    def reproduced(self) -> bool | None:
        """Whether the difference is within the tolerance; None if it is not judged."""
        if self.difference is None or self.tolerance is None:
            return None
        return abs(self.difference) <= self.tolerance


def tasks_in(folders: Sequence[Path], published: Published) -> Iterator[Task]:
    """Read the place data sets of folders; those that cannot be read are said to be left out."""
    for root in folders:
        for folder in find(root, lambda path: any(layout.recognises(path) for layout in LAYOUTS.values())):
            layout = next(layout for layout in LAYOUTS.values() if layout.recognises(folder))
            key = published.protocol_of(folder, layout)
            options = {} if key is None else published.protocols[key].options
            try:
                dataset = read_places(folder, layout.name, Protocol(**options))
            except VprDheError as error:
                print(f"left out {folder}: {error}", file=sys.stderr)
                continue
            if dataset.positives is None:
                print(f"left out {folder}: its ground truth is not public", file=sys.stderr)
                continue
            yield Task(dataset, key)


class Descriptors(NamedTuple):
    """Global descriptors of images, and the bits of their binary codes as -1 and 1 if the model makes some."""

    vectors: Float[Tensor, "images dimension"]
    codes: Float[Tensor, "images bits"] | None = None


def vectors_of(split: PlaceSplit, extractor: Extractor, batch_size: int, what: str) -> Descriptors:
    """Extract the global descriptors and binary codes of images, without keeping local maps.

    Raises:
        ImageError: if one cannot be read.
    """
    images = read_ahead(decode_named, [split.folder / record.path for record in split.records])
    vectors: list[Tensor] = []
    codes: list[Tensor] = []
    with tqdm(total=len(split.records), desc=what, file=sys.stderr) as progress:
        while batch := list(islice(images, batch_size)):
            decoded: list[Image] = []
            for image in batch:
                if isinstance(image, ImageError):
                    raise image
                decoded.append(image)
            extracted = extractor.extract(decoded)
            vectors += [one.global_descriptor.float().cpu() for one in extracted]
            codes += [_signs(one.code) for one in extracted if one.code is not None]
            progress.update(len(batch))
    found = torch.stack(vectors)
    found = normalize(found, dim=1) if extractor.spec.unit_norm else found
    return Descriptors(found, torch.stack(codes) if codes else None)


def _signs(code: UInt8[Tensor, " code_bytes"]) -> Float[Tensor, " bits"]:
    return torch.from_numpy(np.unpackbits(code.cpu().numpy())).float() * 2 - 1


def nearest(queries: Descriptors, database: Descriptors) -> Int64[Tensor, "queries ranks"]:
    """Rows of the nearest database images, best first, by Euclidean distance.

    Of models with binary codes, only those of the images whose codes are nearest are compared, as their authors do.
    """
    count = min(max(RANKS), len(database.vectors))
    found: list[Tensor] = []
    for rows in torch.arange(len(queries.vectors)).split(_QUERIES_AT_ONCE):
        distances = torch.cdist(queries.vectors[rows], database.vectors)
        if queries.codes is not None and database.codes is not None:
            agreeing = queries.codes[rows] @ database.codes.T
            proposed = agreeing.topk(min(PUBLISHED_CANDIDATES, len(database.vectors))).indices
            others = torch.ones_like(distances, dtype=torch.bool).scatter_(1, proposed, False)
            distances = distances.masked_fill(others, torch.inf)
        found.append(distances.topk(count, largest=False).indices)
    return torch.cat(found)


def recall_of(dataset: PlaceDataset, extractor: Extractor, batch_size: int) -> dict[int, float]:
    """Measure recall by global descriptors."""
    assert dataset.positives is not None
    database = vectors_of(dataset.database, extractor, batch_size, f"{dataset.name}, database")
    queries = vectors_of(dataset.queries, extractor, batch_size, f"{dataset.name}, queries")
    return recall_at(nearest(queries, database).tolist(), dataset.positives, RANKS)


def row_of(task: Task, name: str, recall: dict[int, float], published: Published) -> Row:
    """Put a recall beside the published figure."""
    known = None if task.protocol is None else published.protocols[task.protocol]
    figure = published.figures.get(name)
    value = None if figure is None or task.protocol is None else figure.recall_at_1.get(task.protocol)
    return Row(
        task.dataset.name,
        task.dataset.protocol if known is None else known.meaning,
        len(task.dataset.queries.records),
        name,
        recall,
        value,
        None if known is None else known.tolerance,
        "" if figure is None or value is None else figure.source,
    )


def recall_table(rows: Sequence[Row]) -> str:
    """Format recalls beside published ones; what is unknown stays empty."""
    cells = []
    for row in rows:
        recalls = [f"{row.recall[rank]:.1f}" for rank in RANKS]
        published = "" if row.published is None else f"{row.published:.1f}"
        difference = "" if row.difference is None else f"{row.difference:+.1f}"
        tolerance = "" if row.tolerance is None or row.published is None else f"{row.tolerance:.1f}"
        verdict = {None: "", True: "yes", False: "no"}[row.reproduced]
        asked = f"{row.dataset}: {row.protocol}"
        cells.append([asked, row.model, *recalls, published, difference, tolerance, verdict, row.source])
    header = ["data set", "model", *(f"R@{rank}" for rank in RANKS)]
    return table([*header, "published R@1", "difference", "tolerance", "reproduced", "source"], cells)


def write(out: Path, rows: Sequence[Row], missing: Mapping[str, str]) -> None:
    """Write the results so far."""
    out.mkdir(parents=True, exist_ok=True)
    absent = "".join(f"- `{name}`: {reason}\n" for name, reason in missing.items())
    (out / "reproduce.md").write_text(f"{recall_table(rows)}\n" + (f"\nNot measured:\n\n{absent}" if absent else ""))
    document = [asdict(row) | {"difference": row.difference, "reproduced": row.reproduced} for row in rows]
    write_result(out / "reproduce.json", "reproduce", {"rows": document, "missing": dict(missing)})


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="data sets, or folders of data sets")
    parser.add_argument("--models", nargs="+", default=list(PUBLISHED), help="names or model files; all published ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--queries-limit", type=int, help="queries of each data set, for a quick look")
    parser.add_argument("--published", type=Path, default=PUBLISHED_RECALL, help="figures and protocols")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    published = Published.read(arguments.published)
    tasks = list(tasks_in(arguments.folders, published))
    if not tasks:
        print("no data set was found; give folders in a layout that `vpr-dhe evaluate` reads", file=sys.stderr)
        return 2
    if arguments.queries_limit:
        tasks = [Task(task.dataset.limited(arguments.queries_limit), task.protocol) for task in tasks]
    rows, missing = list[Row](), dict[str, str]()
    for model in arguments.models:
        name = Path(model).stem if model not in PUBLISHED else model
        try:
            extractor = load_extractor(model, arguments.device)
            for task in tasks:
                recall = recall_of(task.dataset, extractor, arguments.batch_size)
                rows.append(row_of(task, name, recall, published))
        except VprDheError as error:
            missing[name] = str(error)
            print(f"{name} is missing: {error}", file=sys.stderr)
        write(arguments.out, rows, missing)
    print(recall_table(rows))
    judged = [row.reproduced for row in rows if row.reproduced is not None]
    print(f"\n{sum(judged)} of {len(judged)} published figures reproduced; {len(missing)} models missing")
    if not rows:
        return 2
    return 0 if all(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
