"""Local maps of a query's candidates, read and matched together, for one or several verifiers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from vpr_dhe.errors import ImageError, IndexedImagesMissingError
from vpr_dhe.index.paths import is_folder, moved_hint
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.index.stored_maps import StoredMaps
from vpr_dhe.localization.coarse_pass import coarse_votes
from vpr_dhe.records import NOTHING_TO_MATCH, Features, Frame, Image, Matches, Verification
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.verification.estimators.base import View, matches_of_cells
from vpr_dhe.verification.verifier import Verifier

_log = logging.getLogger(__name__)

QueryImage: TypeAlias = Image | Callable[[], Image]
"""Decoded query, or a function that decodes it, which is called only for verifiers that use pixels."""

Result = TypeVar("Result")
_Decoded: TypeAlias = tuple[Float[Tensor, "images dimension"], Float[Tensor, "images cells local_dimension"]]


def decode_query(image: QueryImage) -> Image:
    """Decode a query, unless it is decoded."""
    return image() if callable(image) else image


class CandidateMaps:
    """Local maps of the candidates of a query, read and matched once, however many verifiers verify them.

    Pixels are decoded only for estimators that use them, and anew for each verifier. `saved_ms` adds up the time that
    work of earlier calls has saved later ones.

    Args:
        snapshot: state of the index that holds the candidates.
        query: features of the query.
        ids: candidates, in the order of retrieval.
    """

    def __init__(self, snapshot: Snapshot, query: Features, ids: Sequence[int]) -> None:
        self.query, self.ids = query, tuple(ids)
        self.saved_ms = 0.0
        self._snapshot = snapshot
        self._maps = _SharedResult[StoredMaps]()
        self._frames = _SharedResult[list[Frame]]()
        self._votes = _SharedResult[Float64[np.ndarray, " candidates"]]()
        self._matches = _SharedResult[Callable[[int], Matches]]()
        self._decoded = _SharedResult[_Decoded]()

    def shift_votes(self) -> dict[int, float]:
        """Votes of the matches of each candidate for one shift.

        Raises:
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        votes = self._votes.for_one(self._vote, self._save, before=self._maps_for_one())
        return dict(zip(self.ids, votes().tolist(), strict=True))

    def verify(self, verifier: Verifier, image: QueryImage) -> dict[int, Verification]:
        """Verify all candidates.

        Raises:
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        frames, maps = self._frames.for_one(self._read_frames, self._save)(), self._maps_for_one()
        matches = self._matches.for_one(self._match, self._save, before=maps)
        decoded = self._decoded.for_one(self._decode, self._save, before=maps)
        candidates = [
            View(
                frames[row],
                image=partial(_decode_indexed, self._snapshot, id),
                features=partial(self._features_of, decoded, row),
                matches=partial(_matches_of, matches, row),
                cache=partial(self._snapshot.cache_of, id),
            )
            for row, id in enumerate(self.ids)
        ]
        query = View(self.query.frame, partial(decode_query, image), lambda: self.query)
        return _verified(verifier, query, dict(zip(self.ids, candidates, strict=True)))

    def _maps_for_one(self) -> Callable[[], StoredMaps]:
        """Function that reads the maps for one user, before what is made of them: every user pays for reading them."""
        return self._maps.for_one(self._read_maps, self._save)

    def _save(self, milliseconds: float) -> None:
        self.saved_ms += milliseconds

    def _read_maps(self) -> StoredMaps:
        return self._snapshot.stored_maps(self.ids)

    def _read_frames(self) -> list[Frame]:
        return [self._snapshot.frame(id) for id in self.ids]

    def _vote(self) -> Float64[np.ndarray, " candidates"]:
        maps = self._maps.result(self._read_maps)
        return coarse_votes(self.query.local_map, self._snapshot.manifest.spec.grid, maps.match)

    def _match(self) -> Callable[[int], Matches]:
        maps = self._maps.result(self._read_maps)
        matches_of = matches_of_cells(partial(maps.match, self.query.local_map), self._snapshot.manifest.spec)
        matches_of(0)  # matches all candidates
        return matches_of

    def _decode(self) -> _Decoded:
        maps = self._maps.result(self._read_maps)
        return self._snapshot.descriptors(self.ids), maps.decoded.to(self.query.local_map.device)

    def _features_of(self, decoded: Callable[[], _Decoded], row: int) -> Features:
        descriptors, local_maps = decoded()
        frames = self._frames.result(self._read_frames)
        return Features(descriptors[row], local_maps[row], self._snapshot.manifest.spec.grid, frames[row])


class SharedCandidateMaps:
    """Makes the maps of the same candidates once, for all verifiers that ask for them one after the other."""

    def __init__(self) -> None:
        self._query: Features | None = None
        self._made: dict[tuple[int, ...], CandidateMaps] = {}

    def take_saved_ms(self) -> float:
        """Time that sharing has saved since this was last asked."""
        saved_ms = sum(one.saved_ms for one in self._made.values())
        for one in self._made.values():
            one.saved_ms = 0.0
        return saved_ms

    def __call__(self, snapshot: Snapshot, query: Features, ids: Sequence[int]) -> CandidateMaps:
        """Return the maps of these candidates of a query, or make them; those of other queries are forgotten."""
        if self._query is not query:
            self._query, self._made = query, {}
        return self._made.setdefault(tuple(ids), CandidateMaps(snapshot, query, ids))


def verify_images(
    snapshot: Snapshot, verifier: Verifier, image: QueryImage, query: Features, ids: Sequence[int]
) -> dict[int, Verification]:
    """Verify a query against images of a snapshot; pixels are decoded only for estimators that use them."""
    return CandidateMaps(snapshot, query, ids).verify(verifier, image)


class _SharedResult(Generic[Result]):
    """Result of work that is done when the first of several users needs it.

    The work is passed by each user, not kept: a method kept here would refer to its object, which refers to this. Such
    a cycle holds all maps of a query until the garbage collector runs, thousands of queries later.
    """

    def __init__(self) -> None:
        self._done: tuple[Result, float] | None = None

    def result(self, work: Callable[[], Result]) -> Result:
        """Result of the work, which is done now if it was not before."""
        return self._timed(work)[0]

    def for_one(
        self, work: Callable[[], Result], save: Callable[[float], object], before: Callable[[], object] = lambda: None
    ) -> Callable[[], Result]:
        """Function that returns the result to one user, and tells `save` the milliseconds if another did the work.

        `before` gets what the work needs, for each user anew, and does not count as part of it.
        """

        @cache
        def result() -> Result:
            before()
            was_done = self._done is not None
            found, milliseconds = self._timed(work)
            if was_done:
                save(milliseconds)
            return found

        return result

    def _timed(self, work: Callable[[], Result]) -> tuple[Result, float]:
        if self._done is None:
            clock = Stopwatch()
            found = work()
            self._done = found, clock.lap_ms()
        return self._done


class _UnreadableImageError(Exception):
    """File of a candidate that cannot be read any more."""

    def __init__(self, id: int, reason: str) -> None:
        super().__init__(reason)
        self.id = id


def _verified(verifier: Verifier, query: View, candidates: Mapping[int, View]) -> dict[int, Verification]:
    """Verify candidates; those whose files cannot be read any more have nothing to match."""
    left, verified = dict(candidates), dict[int, Verification]()
    while True:
        try:
            found = verifier.verify(query, list(left.values()))
        except _UnreadableImageError as error:
            _warn_once(str(error))
            verified[error.id] = NOTHING_TO_MATCH
            del left[error.id]
        else:
            verified |= zip(left, found, strict=True)
            return {id: verified[id] for id in candidates}


@lru_cache(maxsize=1024)
def _warn_once(reason: str) -> None:
    _log.warning("%s; it is verified as if it were blank", reason)


def _matches_of(matches: Callable[[], Callable[[int], Matches]], row: int) -> Matches:
    return matches()(row)


def _decode_indexed(snapshot: Snapshot, id: int) -> Image:
    folders, name = snapshot.manifest.folders, snapshot.image(id).path
    folder = Path(folders.owner(name))
    if not is_folder(folder):
        raise IndexedImagesMissingError(
            f"the verifier compares pixels, and the indexed images are no longer in {folder}; "
            f"{moved_hint(snapshot.folder)}"
        )
    try:
        return snapshot.decode(id)
    except ImageError as error:
        raise _UnreadableImageError(id, str(error)) from error
