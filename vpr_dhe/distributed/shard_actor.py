"""Server of one shard, in the process of a Ray actor: searches its segments and verifies next to their local maps."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from jaxtyping import Float, UInt8
from torch import Tensor

from vpr_dhe.distributed.sharding import Shard
from vpr_dhe.errors import IndexDamagedError, ShardsMissingError
from vpr_dhe.index.manifest import read_manifest
from vpr_dhe.index.search import SearchResult
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.localization.shortlist import verify_images
from vpr_dhe.records import Features, Image, ImageRecord, Near, NearbyImages, Verification
from vpr_dhe.verification.verifier import Verifier

Query: TypeAlias = tuple[Image, Features]
"""A query as sent to shards."""


class ShardServer:
    """Server of one shard.

    Segments are opened on first use, because an error in the constructor of an actor ends it for good and reaches the
    caller without its type.
    """

    def __init__(self, folder: Path, shard: Shard, verifier: Verifier | None) -> None:
        self._folder, self._shard, self._verifier = folder, shard, verifier

    def open(self) -> str:
        """Open the shard and return its name.

        Raises:
            IndexDamagedError: if stored data fails its checksum.
            ShardsMissingError: if the index was rewritten since the shards were made, and segments of this one are
                gone.
        """
        assert self._snapshot.segments, "a shard without segments"
        return self._shard.name

    @cached_property
    def _snapshot(self) -> Snapshot:
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
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        near: Near | None = None,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
    ) -> SearchResult:
        """Find the `count` images of this shard nearest to each query descriptor, or all if there are fewer.

        With `near`, only images in that circle are searched. `codes` are the binary codes of the queries.
        """
        among = None if near is None else self._snapshot.within(near)[0]
        return self._snapshot.nearest(descriptors, count, codes=codes, among=among)

    def nearby(self, near: Near) -> NearbyImages:
        """Count the images of this shard in a circle."""
        # The manifest counts the removed images of all shards.
        _, found = self._snapshot.within(near)
        live = sum(int(segment.live(self._snapshot.removed).sum()) for segment in self._snapshot.segments)
        return replace(found, unplaced=found.unplaced + live - len(self._snapshot))

    def verify(self, query: Query, ids: Sequence[int]) -> dict[int, Verification]:
        """Verify a query against images of this shard."""
        assert self._verifier is not None, "verify needs a verifier"
        image, features = query
        return verify_images(self._snapshot, self._verifier, image, features, ids)

    def records(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Records of images of this shard."""
        return {id: self._snapshot.image(id) for id in ids}
