"""Descriptors of made-up towns: what a place looks like, and what changes from one image of it to the next."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from made_up_codes import BITS, codes_of

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.ingest import ExtractedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.rows import Digest, FileStamp
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.records import Features, Frame, Grid, ImageRecord, MetricPosition, Size

DIMENSION = 48
SIZE = Size(64, 48)
SPEC = ExtractorSpec("towns", "0" * 64, DIMENSION, 4, Grid(1, 2), SIZE, True, 3.0)
SPEC_WITH_CODES = replace(SPEC, code_bits=BITS)


def town(places: int, views: int, *, nuisance: float = 2.0, seed: int = 0) -> tuple[np.ndarray, list[ImageRecord]]:
    """Images along one street, 10 m apart and `views` on each; light varies along the first eight directions."""
    random = np.random.default_rng(seed)
    count = places * views
    looks = np.repeat(random.standard_normal((places, DIMENSION)), views, axis=0)
    light = np.zeros((count, DIMENSION))
    light[:, :8] = nuisance * random.standard_normal((count, 8))
    common = 1.5 * np.ones(DIMENSION)
    vectors = looks + light + common + 0.6 * random.standard_normal((count, DIMENSION))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    # 100 m from place to place, so that no other place is within 25 m.
    x = [100.0 * (number // views) + 4.0 * (number % views) for number in range(count)]
    return vectors, [ImageRecord(f"{seed}-{number}.jpg", MetricPosition(x[number], 0.0)) for number in range(count)]


def filled(folder: Path, vectors: np.ndarray, records: Sequence[ImageRecord], **options) -> PlaceIndex:
    """Index that holds these descriptors."""
    return filled_with(SPEC, folder, vectors, records, **options)


def filled_with(
    spec: ExtractorSpec, folder: Path, vectors: np.ndarray, records: Sequence[ImageRecord], **options
) -> PlaceIndex:
    """Index of a model that may make binary codes."""
    index = PlaceIndex.create(folder, spec, folder.parent, codec="float16", **options)
    add(index, vectors, records)
    return index


def add(index: PlaceIndex, vectors: np.ndarray, records: Sequence[ImageRecord]) -> None:
    """Add images as one segment."""
    codes = codes_of(vectors) if index.spec.code_bits else [None] * len(vectors)
    cells = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    with index.writing() as writer:
        writer.add_extracted(
            [
                ExtractedImage(
                    place,
                    IndexedImage(record, SIZE),
                    FileStamp(0, 0, Digest(0, writer.manifest.next_id + place)),
                    Features(
                        torch.from_numpy(vector),
                        cells,
                        SPEC.grid,
                        Frame(SIZE, SIZE),
                        None if code is None else torch.from_numpy(code),
                    ),
                )
                for place, (vector, record, code) in enumerate(zip(vectors, records, codes, strict=True))
            ]
        )
