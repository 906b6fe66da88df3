"""Features of queries, extracted in batches and kept in files between evaluations.

Local maps are stored as the extractor gave them, not by the codec of an index, because a query is matched with its
exact local map. Their type is kept: 24 x 24 cells of 128 dimensions in float32 take 295 KB per query.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.errors import ImageError
from vpr_dhe.features.base import Extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.opened import FULL_RANGE
from vpr_dhe.index.manifest import SkippedImage, lock_for_writing
from vpr_dhe.records import Features, Frame, GreyLevels, Grid, Image, Progress, Size
from vpr_dhe.runtime.durable_files import write_durably
from vpr_dhe.runtime.prefetching import read_ahead

FORMAT = "vpr-dhe query features 1"
_SUFFIX = ".safetensors"
# Few enough that an interruption loses little, and that they fit in memory.
_QUERIES_PER_FILE = 64

QueryFeatures: TypeAlias = Features | SkippedImage
"""Features of a query, or the reason why it could not be read."""


def extract_queries(
    queries: PlaceSplit, extractor: Extractor, batch_size: int = 8, *, grey_levels: GreyLevels = FULL_RANGE
) -> Iterator[QueryFeatures]:
    """Extract all queries in batches, in order.

    Images are decoded ahead within runs of some batches, and not while the caller uses the features of a run, so
    that the caller can time its own work.
    """
    for first in range(0, len(queries.records), _QUERIES_PER_FILE):
        yield from _extract_run(queries, first, extractor, batch_size, grey_levels)


class StoredQueryFeatures:
    """Features of all queries of a data set, in the files of one folder; read in order, file by file.

    `device` is that of the features.
    """

    def __init__(self, folder: Path, queries: PlaceSplit, device: torch.device) -> None:
        self._folder, self._queries, self._device = folder, queries, device

    @classmethod
    def complete(
        cls,
        folder: Path,
        queries: PlaceSplit,
        extractor: Extractor,
        *,
        batch_size: int = 8,
        grey_levels: GreyLevels = FULL_RANGE,
        progress: Progress = lambda _: None,
    ) -> "StoredQueryFeatures":
        """Open a folder, and extract what it lacks; an interruption loses at most the queries of one file.

        Raises:
            IndexBusyError: if another process is writing to the folder.
        """
        stored = cls(folder, queries, getattr(extractor, "device", torch.device("cpu")))
        folder.mkdir(parents=True, exist_ok=True)
        with lock_for_writing(folder):
            for first in stored.first_of_files:
                if stored.read(first) is None:
                    run = _extract_run(queries, first, extractor, batch_size, grey_levels)
                    write_durably(folder, _file_name(first), _encoded(run))
                progress(min(_QUERIES_PER_FILE, len(queries.records) - first))
        return stored

    @property
    def first_of_files(self) -> range:
        """Number of the first query of each file."""
        return range(0, len(self._queries.records), _QUERIES_PER_FILE)

    def __iter__(self) -> Iterator[QueryFeatures]:
        for first in self.first_of_files:
            run = self.read(first)
            assert run is not None, "the folder was changed while it was read"
            yield from run

    def read(self, first: int) -> list[QueryFeatures] | None:
        """Read the file that begins with this query; None if it is missing or damaged."""
        try:
            return _read(self._folder / _file_name(first), self._device)
        except (OSError, SafetensorError):
            return None


def _extract_run(
    queries: PlaceSplit, first: int, extractor: Extractor, batch_size: int, grey_levels: GreyLevels
) -> list[QueryFeatures]:
    """Extract the queries of one file."""
    records = queries.records[first : first + _QUERIES_PER_FILE]
    run: dict[int, QueryFeatures] = {}
    batch: dict[int, Image] = {}
    decode = partial(decode_image, grey_levels=grey_levels)
    images = read_ahead(decode, (queries.folder / record.path for record in records))
    for place, (record, image) in enumerate(zip(records, images, strict=True)):
        if isinstance(image, ImageError):
            run[place] = SkippedImage(record.path, str(image))
            continue
        batch[place] = image
        if len(batch) == batch_size:
            run |= _extract_batch(batch, extractor)
            batch = {}
    if batch:
        run |= _extract_batch(batch, extractor)
    return [run[place] for place in range(len(records))]


def _extract_batch(batch: Mapping[int, Image], extractor: Extractor) -> dict[int, Features]:
    return dict(zip(batch, extractor.extract(list(batch.values())), strict=True))


def _file_name(first: int) -> str:
    return f"{first:06d}{_SUFFIX}"


def _encoded(run: Sequence[QueryFeatures]) -> bytes:
    features = [one for one in run if isinstance(one, Features)]
    unreadable = [None if isinstance(one, Features) else [one.path, one.reason] for one in run]
    return save(_columns(features) if features else {}, {"unreadable": json.dumps(unreadable)})


def _columns(features: Sequence[Features]) -> dict[str, Tensor]:
    codes = [one.code.cpu() for one in features if one.code is not None]
    return {
        **({"codes": torch.stack(codes)} if codes else {}),
        "global_descriptors": torch.stack([one.global_descriptor.cpu() for one in features]),
        "local_maps": torch.stack([one.local_map.cpu() for one in features]),
        "grids": torch.tensor([one.grid for one in features]),
        "image_sizes": torch.tensor([one.frame.image_size for one in features]),
        "input_sizes": torch.tensor([one.frame.input_size for one in features]),
    }


def _read(path: Path, device: torch.device) -> list[QueryFeatures]:
    with safe_open(path, "pt") as file:
        unreadable = json.loads(file.metadata()["unreadable"])
        columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dictionary)
    features = _features(columns, device) if columns else iter(())
    return [next(features) if fault is None else SkippedImage(*fault) for fault in unreadable]


def _features(columns: Mapping[str, Tensor], device: torch.device) -> Iterator[Features]:
    rows = zip(
        columns["global_descriptors"],
        columns["local_maps"],
        columns["grids"].tolist(),
        columns["image_sizes"].tolist(),
        columns["input_sizes"].tolist(),
        columns.get("codes", [None] * len(columns["grids"])),
        strict=True,
    )
    for vector, local_map, grid, image_size, input_size, code in rows:
        frame = Frame(Size(*image_size), Size(*input_size))
        placed = None if code is None else code.to(device)
        yield Features(vector.to(device), local_map.to(device), Grid(*grid), frame, placed)
