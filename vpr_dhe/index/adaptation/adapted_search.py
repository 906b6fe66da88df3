"""Adaptation of an index, opened for searching and for adding images."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Int64

from vpr_dhe.index.adaptation.adapted_vectors import AdaptedRows, prepared
from vpr_dhe.index.adaptation.report import AdaptationInfo
from vpr_dhe.index.adaptation.storage import ImageTerms, Parameters, no_terms, read_parameters, read_terms
from vpr_dhe.index.files import FileInfo
from vpr_dhe.index.vectors import Queries, RowTerms, Stack

T = TypeVar("T")


class Adaptation:
    """Transform of an index's vectors, and the terms of its images."""

    def __init__(self, parameters: Parameters, terms: ImageTerms) -> None:
        self.parameters, self._terms = parameters, terms

    def prepared(self, queries: Float32[np.ndarray, "queries dimension"]) -> Queries:
        """Adapt query descriptors."""
        return prepared(queries, self.parameters.transform, self.parameters.hub_weight)

    def terms_of(self, ids: Int64[np.ndarray, " chosen"]) -> RowTerms:
        """Look up the terms of images."""
        return self._terms.of(ids)

    def file_rows(self, extracted: Stack, ids: Int64[np.ndarray, " rows"]) -> AdaptedRows:
        """Adapted vectors of images, to put into a FAISS file."""
        return AdaptedRows(extracted, self.parameters.transform, self.terms_of(ids), self.parameters.hub_weight)


def image_terms(
    parameters: Parameters,
    ids: Int64[np.ndarray, " images"],
    vectors: Float32[np.ndarray, "images dimension"],
    hub_means: Float32[np.ndarray, " images"] | None,
) -> ImageTerms:
    """Compute the terms of images; `hub_means` may hold NaN for images whose place is unknown."""
    offsets = np.zeros(len(ids), np.float32)
    if hub_means is not None:
        centred = np.nan_to_num(hub_means - np.float32(parameters.mean_hub), nan=0.0)
        offsets = (np.float32(parameters.hub_weight) * centred).astype(np.float32)
    return ImageTerms(ids, RowTerms(parameters.transform.scales(vectors), offsets))


class AdaptationFiles:
    """Reader of adaptations that keeps what it has read."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder, self._dimension = folder, dimension
        self._parameters: dict[str, Parameters] = {}
        self._terms: dict[str, ImageTerms] = {}

    def open(self, info: AdaptationInfo | None) -> Adaptation | None:
        """Open the adaptation of a manifest; None if vectors are searched as extracted.

        Raises:
            IndexDamagedError: if a file does not agree with its checksum.
        """
        if info is None or info.parameters is None:
            self._parameters, self._terms = {}, {}
            return None
        self._parameters = _kept(self._parameters, (info.parameters,), self._read_parameters)
        self._terms = _kept(self._terms, info.terms, lambda file: read_terms(self._folder, file))
        terms = ImageTerms.joined([no_terms(), *(self._terms[file.name] for file in info.terms)])
        return Adaptation(self._parameters[info.parameters.name], terms)

    def _read_parameters(self, file: FileInfo) -> Parameters:
        return read_parameters(self._folder, file, self._dimension)


def _kept(known: dict[str, T], files: tuple[FileInfo, ...], read: Callable[[FileInfo], T]) -> dict[str, T]:
    """Content of exactly these files, read unless it is known."""
    return {file.name: known[file.name] if file.name in known else read(file) for file in files}
