"""Server of one shard, in the process of a Ray actor: searches its segments and verifies next to their local maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from vpr_dhe.distributed.sharding import Shard
from vpr_dhe.distributed.threads import Threads
from vpr_dhe.errors import IndexDamagedError, ShardsMissingError
from vpr_dhe.index.manifest import read_manifest
from vpr_dhe.index.search import SearchResult
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.localization.candidate_maps import CandidateMaps, QueryImage, verify_images
from vpr_dhe.records import Features, Frame, Grid, Image, ImageRecord, Near, NearbyImages, Verification
from vpr_dhe.verification.verifier import Verifier

Verified: TypeAlias = tuple[Verification, ImageRecord]
"""Verification of an image with its record, which saves a round trip for the record."""


@dataclass(frozen=True)
class SentQuery:
    """Query as sent to shards, with arrays, which Ray serialises faster than tensors.

    `image` is None for verifiers that do not use pixels, because an image is much larger than its features.
    """

    image: Image | None
    descriptor: Float32[np.ndarray, " dimension"]
    local_map: Float32[np.ndarray, "cells local_dimension"]
    grid: Grid
    frame: Frame
    code: UInt8[np.ndarray, " code_bytes"] | None

    @classmethod
    def of(cls, image: Callable[[], Image] | None, query: Features) -> "SentQuery":
        """Make a query from its features and, for verifiers that use pixels, a function that decodes the image."""
        descriptor, local_map = query.global_descriptor.float().cpu().numpy(), query.local_map.float().cpu().numpy()
        code = None if query.code is None else query.code.cpu().numpy()
        return cls(image and image(), descriptor, local_map, query.grid, query.frame, code)

    @property
    def features(self) -> Features:
        """Features of the query, copied because arrays from Ray are read-only."""
        code = None if self.code is None else torch.tensor(self.code)
        return Features(torch.tensor(self.descriptor), torch.tensor(self.local_map), self.grid, self.frame, code)

    @property
    def query_image(self) -> QueryImage:
        """The decoded image, or a function that raises if it was not sent."""
        return _not_sent if self.image is None else self.image


def _not_sent() -> Image:
    raise LookupError("the image of the query was not sent, because the verifier does not use pixels")


class ShardServer:
    """Server of one shard.

    Segments are opened on first use, because an error in the constructor of an actor ends it permanently and reaches
    the caller without its type.
    """

    def __init__(self, folder: Path, shard: Shard, verifier: Verifier | None, threads: int | None = None) -> None:
        self._folder, self._shard, self._verifier, self._threads = folder, shard, verifier, threads

    def open(self) -> str:
        """Open the shard and return its name.

        Raises:
            IndexDamagedError: if stored data fails its checksum.
            ShardsMissingError: if the index was rewritten after the shards were assigned, and segments are gone.
        """
        assert self._snapshot.segments, "a shard without segments"
        return self._shard.name

    @cached_property
    def _snapshot(self) -> Snapshot:
        # Here and not in `open`, which is not called again after a restart. Ray gives an actor one thread.
        if self._threads is not None:
            Threads(self._threads, self._threads).use()
        try:
            return Snapshot(self._folder, self._shard.manifest)
        except IndexDamagedError as error:
            now = read_manifest(self._folder)
            pinned = self._shard.manifest
            if now.removed == pinned.removed and set(pinned.segments) <= set(now.segments):
                raise
            raise ShardsMissingError(
                f"{self._shard.name} was restarted, but index {self._folder} was rewritten since it was opened; "
                "open it again"
            ) from error

    def search(
        self,
        descriptors: Float32[np.ndarray, "queries dimension"],
        count: int,
        near: Near | None = None,
        codes: UInt8[np.ndarray, "queries code_bytes"] | None = None,
    ) -> SearchResult:
        """Find the `count` images of this shard nearest to each query descriptor, or all if there are fewer.

        With `near`, only images in that circle are searched. `codes` are the binary codes of the queries.
        """
        among = None if near is None else self._snapshot.within(near)[0]
        bits = None if codes is None else torch.tensor(codes)
        return self._snapshot.nearest(torch.tensor(descriptors), count, codes=bits, among=among)

    def nearby(self, near: Near) -> NearbyImages:
        """Count the images of this shard in a circle."""
        # The manifest counts the removed images of all shards.
        _, found = self._snapshot.within(near)
        live = sum(int(segment.live(self._snapshot.removed).sum()) for segment in self._snapshot.segments)
        return replace(found, unplaced=found.unplaced + live - self._snapshot.manifest.count)

    def shift_votes(self, query: SentQuery, ids: Sequence[int]) -> dict[int, float]:
        """Coarse pass over images of this shard."""
        return CandidateMaps(self._snapshot, query.features, ids).shift_votes()

    def verify(self, query: SentQuery, ids: Sequence[int]) -> dict[int, Verified]:
        """Verify a query against images of this shard."""
        assert self._verifier is not None, "verify needs a verifier"
        verified = verify_images(self._snapshot, self._verifier, query.query_image, query.features, ids)
        return {id: (verification, self._snapshot.image(id)) for id, verification in verified.items()}

    def records(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Records of images of this shard."""
        return {id: self._snapshot.image(id) for id in ids}
