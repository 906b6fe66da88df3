"""The database side of a query: an index with a verifier, and one fixed state of it per query."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geography.neighbours import PositionSearch
from vpr_dhe.geometry.matching import mutual_nearest_neighbours
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.index.ingest import ExtractedImage, comparable
from vpr_dhe.index.manifest import AdaptationInfo, CodecInfo
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.search import SearchResult, merge
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.index.vectors import Queries, exact_search
from vpr_dhe.localization.candidate_maps import CandidateMaps, QueryImage, decode_query
from vpr_dhe.localization.coarse_pass import coarse_votes
from vpr_dhe.records import Features, GreyLevels, ImageRecord, Near, NearbyImages, Verification
from vpr_dhe.runtime.choices import AUTO, Adapt
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.verifier import Verifier

# Excluded images that are searched for besides those that are wanted, at first.
_FEW_EXCLUDED = 64


@runtime_checkable
class PinnedDatabase(Protocol):
    """One fixed state of a database, from the search to the records of one query."""

    @property
    def grey_levels(self) -> GreyLevels:
        """Grey levels that 16-bit images and queries are read by."""
        ...

    def image_ids(self) -> list[int]:
        """Ids of all images, ascending."""
        ...

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        ...

    @property
    def adaptation(self) -> AdaptationInfo | None:
        """Adaptation of the vectors that are searched; None if they are as extracted."""
        ...

    @property
    def codec(self) -> CodecInfo | None:
        """Codec that local maps are stored with; None if there are none yet."""
        ...

    @property
    def missing_shards(self) -> frozenset[str]:
        """Names of the shards that failed to answer this query; all results leave out their images."""
        ...

    @property
    def nearby(self) -> NearbyImages | None:
        """Images that searches are restricted to; None if they are of all images."""
        ...

    def restricted_to(self, near: Near) -> "PinnedDatabase":
        """Make the same state, of which only images in a circle are searched."""
        ...

    def search(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
    ) -> SearchResult:
        """Find the `count` images nearest to each query descriptor, or all if there are fewer.

        `codes` are the binary codes of the queries, if the model makes some.
        """
        ...

    @property
    def shortlist_size(self) -> int | None:
        """Number of candidates to verify after a coarse pass; None verifies all of them."""
        ...

    def shift_votes(self, query: Features, ids: Sequence[int]) -> Mapping[int, float]:
        """Coarse pass: votes of the matches of each candidate for one shift, by id."""
        ...

    def verify(self, image: QueryImage, query: Features, ids: Sequence[int]) -> Mapping[int, Verification]:
        """Verify a query against database images, by id."""
        ...

    def records(self, ids: Sequence[int]) -> Mapping[int, ImageRecord]:
        """Records of database images, by id."""
        ...


@runtime_checkable
class Database(Protocol):
    """An index with a verifier, in this process or beside remote local maps; it may grow between queries."""

    @property
    def spec(self) -> ExtractorSpec:
        """Spec of the extractor that filled the index."""
        ...

    @property
    def image_count(self) -> int:
        """Number of images."""
        ...

    def pinned(self) -> PinnedDatabase:
        """Pin the current state for one query."""
        ...


class PinnedIndex:
    """One fixed state of an index on this machine, with a verifier in this process.

    Args:
        snapshot: the sealed segments.
        verifier: None keeps the order of retrieval.
        pending: images not sealed yet, by id; found like those of the snapshot, by vectors as extracted.
        excluded: ids of images that must not become candidates.
        adapt: `off` searches vectors as extracted, even if the index is adapted to its map.
        maps_of: makes the maps of the candidates of a query; `SharedCandidateMaps` shares them among verifiers.
    """

    missing_shards: frozenset[str] = frozenset()
    nearby: NearbyImages | None = None

    def __init__(
        self,
        snapshot: Snapshot,
        verifier: Verifier | None,
        *,
        pending: Mapping[int, ExtractedImage] | None = None,
        excluded: frozenset[int] = frozenset(),
        adapt: Adapt = AUTO,
        maps_of: Callable[[Snapshot, Features, Sequence[int]], CandidateMaps] = CandidateMaps,
    ) -> None:
        self._snapshot, self._verifier, self._maps_of = snapshot, verifier, maps_of
        self._pending, self._excluded = pending or {}, excluded
        self._is_sealed = pending is None and not excluded
        adapted = pending is None and adapt == AUTO and snapshot.adaptation is not None
        self.adaptation = snapshot.manifest.adaptation if adapted else None
        self.codec = snapshot.manifest.codec
        self._among: Int64[np.ndarray, " chosen"] | None = None

    def restricted_to(self, near: Near) -> "PinnedIndex":
        """Make the same state, of which only images in a circle are searched.

        Raises:
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        restricted = copy(self)
        restricted._among, sealed = self._snapshot.within(near)
        places = PositionSearch([one.indexed.record.position for one in self._pending.values()])
        ids = list(self._pending)
        inside = [ids[row] for row in places.within(near.position, near.within_m)]
        restricted._excluded = self._excluded | (set(ids) - set(inside))
        unplaced = len(ids) - len(places.comparable(near.position))
        restricted.nearby = NearbyImages(near, sealed.images + len(inside), sealed.unplaced + unplaced)
        return restricted

    @property
    def grey_levels(self) -> GreyLevels:
        """Grey levels that 16-bit images and queries are read by."""
        return self._snapshot.manifest.levels

    def image_ids(self) -> list[int]:
        """Ids of all images, ascending, including pending and excluded ones."""
        return [*self._snapshot.ids.tolist(), *self._pending]

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        return self._verifier is not None

    def search(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
    ) -> SearchResult:
        """Search the snapshot and the pending images.

        Raises:
            BadInputError: if the index is searched by binary codes, and `codes` is None.
            IndexFormatError: if the snapshot is empty and there can be no pending images.
        """
        if self._is_sealed:
            return self._search_sealed(descriptors, count, codes)
        queries = comparable(descriptors, self._snapshot.manifest.spec).cpu()
        parts = [SearchResult.empty(len(queries))]
        if len(self._snapshot):
            parts.append(self._search_but_excluded(queries, count, codes))
        if ids := [id for id in self._pending if id not in self._excluded]:
            vectors = torch.stack([self._pending[id].features.global_descriptor for id in ids]).numpy()
            unit_norm = self._snapshot.manifest.spec.unit_norm
            near = exact_search(vectors, Queries.extracted(queries.numpy()), count, unit_norm=unit_norm)
            parts.append(SearchResult(np.array(ids)[near.rows], near.similarities))
        return merge(parts, count)

    def _search_sealed(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        codes: UInt8[Tensor, "queries code_bytes"] | None,
    ) -> SearchResult:
        adapted = self.adaptation is not None
        return self._snapshot.search(descriptors, count, codes=codes, adapted=adapted, among=self._among)

    def _search_but_excluded(
        self,
        queries: Float[Tensor, "queries dimension"],
        count: int,
        codes: UInt8[Tensor, "queries code_bytes"] | None,
    ) -> SearchResult:
        """Search for few more images at first, because most of the excluded ones, as of a dark night, are not near."""
        excluded = len(self._excluded) - sum(id in self._excluded for id in self._pending)
        more = min(excluded, _FEW_EXCLUDED)
        while True:
            found = self._search_sealed(queries, count + more, codes)
            kept = self._without_excluded(found, count)
            if more == excluded or kept.ids.shape[1] == count or found.ids.shape[1] < count + more:
                return kept
            more = min(excluded, 4 * more)

    def _without_excluded(self, found: SearchResult, count: int) -> SearchResult:
        """The first `count` results of a single query that are not excluded."""
        assert len(found.ids) == 1, "images are excluded for one query at a time"
        kept = np.array([id not in self._excluded for id in found.ids[0].tolist()], bool)
        extracted = None if found.extracted is None else found.extracted[:, kept][:, :count]
        return SearchResult(found.ids[:, kept][:, :count], found.similarities[:, kept][:, :count], extracted)

    @property
    def shortlist_size(self) -> int | None:
        """Number of candidates to verify after a coarse pass; None verifies all of them."""
        return self._verifier and self._verifier.shortlist_size

    def shift_votes(self, query: Features, ids: Sequence[int]) -> dict[int, float]:
        """Coarse pass: votes of the matches of each candidate for one shift."""
        sealed, pending = self._parted(ids)
        votes = self._maps_of(self._snapshot, query, sealed).shift_votes() if sealed else {}
        if pending:
            maps = self._pending_maps(query, pending)
            of_pending = coarse_votes(
                query.local_map,
                self._snapshot.manifest.spec.grid,
                lambda rows, cells: mutual_nearest_neighbours(rows, maps[:, cells]),
            )
            votes |= dict(zip(pending, of_pending.tolist(), strict=True))
        return votes

    def verify(self, image: QueryImage, query: Features, ids: Sequence[int]) -> dict[int, Verification]:
        """Verify a query against database images; their local maps are read and matched together."""
        assert self._verifier is not None, "verify needs a verifier"
        results: dict[int, Verification] = {}
        sealed, pending = self._parted(ids)
        if sealed:
            results |= self._maps_of(self._snapshot, query, sealed).verify(self._verifier, image)
        if pending:
            views = self._pending_views(query, pending)
            verified = self._verifier.verify(View(query.frame, partial(decode_query, image), lambda: query), views)
            results |= dict(zip(pending, verified, strict=True))
        return results

    def _parted(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of sealed and of pending images."""
        return [id for id in ids if id not in self._pending], [id for id in ids if id in self._pending]

    def _pending_maps(self, query: Features, ids: Sequence[int]) -> Float[Tensor, "images cells dimension"]:
        maps = [self._pending[id].features.local_map for id in ids]
        return torch.stack(maps).to(query.local_map.device)

    def _pending_views(self, query: Features, ids: Sequence[int]) -> list[View]:
        images = [self._pending[id] for id in ids]
        folders = self._snapshot.manifest.folders
        matches_of = match_by_grid(query, self._pending_maps(query, ids), self._snapshot.manifest.spec)
        return [
            View(
                one.features.frame,
                image=partial(decode_named, folders.locate(one.indexed.record.path), self._snapshot.manifest.levels),
                features=partial(_itself, one.features),
                matches=partial(matches_of, row),
            )
            for row, one in enumerate(images)
        ]

    def records(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Records of database images."""
        return {id: self._pending[id].indexed.record if id in self._pending else self._snapshot.image(id) for id in ids}


class VerifiedIndex:
    """A growing index on this machine, with a verifier in this process.

    Args:
        index: opened by `PlaceIndex.open` or `PlaceIndex.create`.
        verifier: None keeps the order of retrieval.
        adapt: `off` searches vectors as extracted, even if the index is adapted to its map.
    """

    def __init__(self, index: PlaceIndex, verifier: Verifier | None, *, adapt: Adapt = AUTO) -> None:
        self.index, self._verifier = index, verifier
        self._adapt: Adapt = adapt

    def pinned(self) -> PinnedIndex:
        """Pin the current state of the index for one query."""
        return PinnedIndex(self.index.snapshot, self._verifier, adapt=self._adapt)

    @property
    def spec(self) -> ExtractorSpec:
        """Spec of the extractor that filled the index."""
        return self.index.spec

    @property
    def image_count(self) -> int:
        """Number of images."""
        return len(self.index)


def _itself(features: Features) -> Features:
    return features
