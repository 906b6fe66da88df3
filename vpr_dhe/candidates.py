"""Where a localizer's candidates come from, and where they are verified."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.estimators.base import View, matches_of_cells
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.images import decode_named
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.search import Found
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.index.stored_maps import StoredMaps
from vpr_dhe.records import Features, Frame, Image, ImageRecord, Verification
from vpr_dhe.verification import Verifier

Value = TypeVar("Value")


@dataclass(frozen=True)
class Gathered(Generic[Value]):
    """What is known of some images, by id; `missing` names the shards that did not answer for theirs."""

    by_id: Mapping[int, Value]
    missing: frozenset[str] = frozenset()


@runtime_checkable
class Places(Protocol):
    """An index that a verifier works on: in this process, or next to where the local maps lie."""

    def pinned(self) -> "Places":
        """The same places in the state they are in now, so that one query sees one state."""
        ...

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor that filled the index."""
        ...

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        ...

    def search(self, descriptors: Float[Tensor, "queries dimension"], count: int) -> Found:
        """Find the `count` images nearest to each query descriptor, or all where there are fewer."""
        ...

    def verify(self, image: Image, query: Features, ids: Sequence[int]) -> Gathered[Verification]:
        """Verify a query against indexed images."""
        ...

    def images(self, ids: Sequence[int]) -> Gathered[ImageRecord]:
        """What is known of some images."""
        ...


class PinnedIndex:
    """One state of an index on this machine, and a verifier in this process."""

    def __init__(self, snapshot: Snapshot, verifier: Verifier | None) -> None:
        self._snapshot, self._verifier = snapshot, verifier

    def pinned(self) -> Places:
        """This."""
        return self

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor that filled the index."""
        return self._snapshot.manifest.spec

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        return self._verifier is not None

    def search(self, descriptors: Float[Tensor, "queries dimension"], count: int) -> Found:
        """Search the index."""
        return self._snapshot.search(descriptors, count)

    def verify(self, image: Image, query: Features, ids: Sequence[int]) -> Gathered[Verification]:
        """Verify a query against indexed images, whose maps are read and matched together."""
        assert self._verifier is not None, "asked to verify without a verifier"
        return Gathered(verify_images(self._snapshot, self._verifier, image, query, ids))

    def images(self, ids: Sequence[int]) -> Gathered[ImageRecord]:
        """What the index knows of some images."""
        return Gathered({id: self._snapshot.image(id) for id in ids})


class VerifiedIndex:
    """An index on this machine as it grows, and a verifier in this process.

    Without a verifier, candidates stay in the order of retrieval.
    """

    def __init__(self, index: PlaceIndex, verifier: Verifier | None) -> None:
        self.index, self._verifier = index, verifier

    def pinned(self) -> Places:
        """The state that the index is in now."""
        return PinnedIndex(self.index.snapshot, self._verifier)

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor that filled the index."""
        return self.index.spec

    @property
    def ids(self) -> list[int]:
        """Ids of all images, ascending."""
        return self.index.ids.tolist()

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        return self._verifier is not None

    def search(self, descriptors: Float[Tensor, "queries dimension"], count: int) -> Found:
        """Search the state that the index is in now."""
        return self.pinned().search(descriptors, count)

    def verify(self, image: Image, query: Features, ids: Sequence[int]) -> Gathered[Verification]:
        """Verify against images of the state that the index is in now."""
        return self.pinned().verify(image, query, ids)

    def images(self, ids: Sequence[int]) -> Gathered[ImageRecord]:
        """What the index knows now of some images."""
        return self.pinned().images(ids)


def verify_images(
    snapshot: Snapshot, verifier: Verifier, image: Image, query: Features, ids: Sequence[int]
) -> dict[int, Verification]:
    """Verify a query against images of a snapshot; their pixels are decoded only if the estimator asks for them."""
    spec = snapshot.manifest.spec
    maps = snapshot.stored_maps(ids)
    matches_of = matches_of_cells(partial(maps.match, query.local_map), spec)
    frames = [snapshot.frame(id) for id in ids]
    features_of = _features_when_asked_for(snapshot, ids, maps, frames, query.local_map.device)
    candidates = [
        View(
            frames[place],
            image=partial(_decode_indexed, snapshot, id),
            features=partial(features_of, place),
            matches=partial(matches_of, place),
        )
        for place, id in enumerate(ids)
    ]
    results = verifier.verify(View(query.frame, lambda: image, lambda: query), candidates)
    return dict(zip(ids, results, strict=True))


def _features_when_asked_for(
    snapshot: Snapshot, ids: Sequence[int], maps: StoredMaps, frames: Sequence[Frame], device: torch.device
) -> Callable[[int], Features]:
    """The features of all, decoded when the first are asked for: an estimator that works on matches asks for none."""

    @cache
    def decoded() -> tuple[Float[Tensor, "images dimension"], Float[Tensor, "images cells local_dimension"]]:
        return snapshot.descriptors(ids), maps.decoded.to(device)

    def features_of(place: int) -> Features:
        descriptors, local_maps = decoded()
        return Features(descriptors[place], local_maps[place], snapshot.manifest.spec.grid, frames[place])

    return features_of


def _decode_indexed(snapshot: Snapshot, id: int) -> Image:
    return decode_named(snapshot.image_path(id))
