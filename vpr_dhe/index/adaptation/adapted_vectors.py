"""Adapted forms of the vectors of an index: of rows in FAISS files, and of queries.

FAISS files order by L2 distance. The similarity of a query y and an adapted row x with the centred hub mean h is
y . x - w h. A row gets two more numbers, [x, s w h, r] with r^2 = B^2 - (s w h)^2, and a query [y, -1 / s, 0]: all rows
have the same norm, so the order by distance is that by similarity. As |h| is at most 2, B = 2 s w serves all rows to
come.

Source: Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean transformation for inner-product
spaces", RecSys 2014.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.vectors import Queries, RowTerms, Stack

# Spreads hub means like the other numbers of a row, and keeps queries near the rows: both make compression more exact.
_STRETCH = np.float32(4.0)


@dataclass(frozen=True)
class AdaptedRows:
    """Adapted vectors to put into a FAISS file; see `FileRows`."""

    extracted: Stack
    transform: VectorTransform
    terms: RowTerms
    hub_weight: float

    def __len__(self) -> int:
        return len(self.extracted)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen file_dimension"]:
        """Adapt some rows."""
        return self._adapted(self.extracted.take(rows), self.terms.take(rows))

    def blocks(self) -> Iterator[Float32[np.ndarray, "_count file_dimension"]]:
        """Adapt all rows in order, block by block."""
        first = 0
        for block in self.extracted.blocks():
            yield self._adapted(block, self.terms.take(slice(first, first + len(block))))
            first += len(block)

    def probes(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen file_dimension"]:
        """Make queries for the images of some rows."""
        return probes(self.transform.apply(self.extracted.take(rows)), self.hub_weight)

    def _adapted(
        self, vectors: Float32[np.ndarray, "rows dimension"], terms: RowTerms
    ) -> Float32[np.ndarray, "rows file_dimension"]:
        transformed = self.transform.apply(vectors)
        if not self.hub_weight:
            return transformed
        stretched = _STRETCH * terms.offsets
        bound = _STRETCH * np.float32(2 * self.hub_weight)
        rest = np.sqrt(np.maximum(0, bound**2 - stretched**2))
        return np.concatenate([transformed, stretched[:, None], rest[:, None]], axis=1)


def prepared(
    queries: Float32[np.ndarray, "queries dimension"], transform: VectorTransform, hub_weight: float
) -> Queries:
    """Adapt query descriptors one by one: a product of matrices would sum in another order for another number."""
    each = [queries[number : number + 1] for number in range(len(queries))]
    if not each:
        return Queries(queries, probes(queries, hub_weight), np.empty(0, np.float32))
    transformed = [transform.apply(query) for query in each]
    duals, biases = zip(*map(transform.duals, transformed), strict=True)
    return Queries(np.concatenate(duals), probes(np.concatenate(transformed), hub_weight), np.concatenate(biases))


def probes(
    transformed: Float32[np.ndarray, "queries dimension"], hub_weight: float
) -> Float32[np.ndarray, "queries file_dimension"]:
    """Make queries for FAISS files from transformed descriptors."""
    if not hub_weight:
        return transformed
    ends = np.broadcast_to(np.array([-1 / _STRETCH, 0], np.float32), (len(transformed), 2))
    return np.concatenate([transformed, ends], axis=1)
