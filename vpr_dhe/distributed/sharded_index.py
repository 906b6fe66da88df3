"""Index served by many actors: all shards are searched, and candidates are verified on the shard of their local maps.

    with connected("auto"):
        extractor = load_extractor(PlaceIndex.open(folder).spec.model)
        verifier = build_verifier("magsac", Resources(extractor))
        with ShardedIndex.open(folder, verifier, shards=4, replicas=2) as database:
            answer = Localizer(database, extractor).localize("photo.jpg")

The ranking is that of `Localizer.open(folder)`. Results are never silently partial: if a shard does not answer in time,
an error is raised or the shard is named in the result, as chosen by `missing`.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from jaxtyping import Float, UInt8
from torch import Tensor

from vpr_dhe.distributed.cluster import import_ray
from vpr_dhe.distributed.replicas import Actor, Call, NoAnswerError, Replicas, start_shards
from vpr_dhe.distributed.shard_actor import SentQuery
from vpr_dhe.distributed.sharding import Directory, assign
from vpr_dhe.errors import BadInputError, IndexFormatError, ShardsMissingError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.manifest import AdaptationInfo, CodecInfo, Manifest, read_manifest
from vpr_dhe.index.search import SearchResult, merge
from vpr_dhe.localization.candidate_maps import QueryImage, decode_query
from vpr_dhe.records import Features, GreyLevels, ImageRecord, Near, NearbyImages, StrPath, Verification
from vpr_dhe.verification.verifier import Verifier

Missing: TypeAlias = Literal["fail", "report"]
Answer = TypeVar("Answer")

# Calls of concurrent queries that wait for an answer, each in a thread; the time limit of others has not begun yet.
_CALLS_PER_ACTOR = 4


@dataclass(frozen=True)
class Answers(Generic[Answer]):
    """Results of the shards that answered, by name, and the names of the others."""

    by_shard: Mapping[str, Answer]
    missing: frozenset[str]


class ShardedIndex:
    """Database of a `Localizer` that serves a fixed state of an index by actors.

    Safe to use from several threads at once. `close` ends the actors.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        shards: Mapping[str, Replicas],
        directory: Directory,
        *,
        verifier: Verifier | None,
        missing: Missing,
    ) -> None:
        self._folder, self.manifest, self._shards, self._directory = folder, manifest, shards, directory
        self.verifier, self._missing = verifier, missing
        actors = sum(map(len, shards.values()))
        self._threads = ThreadPoolExecutor(max(1, _CALLS_PER_ACTOR * actors), thread_name_prefix="shards")

    @classmethod
    def open(
        cls,
        folder: StrPath,
        verifier: Verifier | None,
        *,
        shards: int,
        replicas: int = 1,
        missing: Missing = "fail",
        timeout_s: float = 60.0,
    ) -> "ShardedIndex":
        """Start actors on the connected cluster, and wait until they have opened the index.

        Args:
            folder: folder of the index, which, as its images, has the same path on all machines.
            verifier: from `build_verifier`, run on the shards' CPUs; None keeps the order of retrieval.
            shards: maximum number of parts to divide the index into; see `sharding.assign`.
            replicas: actors per shard, on as many machines if possible.
            missing: handling of a shard that does not answer: `fail`, or `report` it in the result.
            timeout_s: maximum time to wait for a shard, over all its replicas and their restarts.

        Raises:
            BadInputError: if `shards` or `replicas` is below 1, or this process has joined no cluster.
            IndexFormatError: if the folder is not an index of this format.
            IndexDamagedError: if stored data fails its checksum.
            ShardsMissingError: if a shard does not start.
            MissingExtraError: if Ray is not installed.
        """
        folder = Path(folder)
        if shards < 1 or replicas < 1:
            raise BadInputError(f"found shards={shards} and replicas={replicas}; expected at least 1 of each")
        if not import_ray().is_initialized():
            raise BadInputError("this process has joined no Ray cluster; call `ray.init` or use `connected` first")
        manifest = read_manifest(folder)
        parts = assign(manifest, shards)
        served = start_shards(folder.resolve(), parts, verifier, replicas, timeout_s)
        index = cls(folder, manifest, served, Directory(parts), verifier=verifier, missing=missing)
        try:
            index._await_start()
        except BaseException:
            index.close()
            raise
        return index

    def _await_start(self) -> None:
        """Wait until every replica has opened its segments."""
        faults = {name: fault for name, replicas in self._shards.items() if (fault := replicas.start_fault())}
        if faults:
            reason = next(iter(faults.values()))
            raise ShardsMissingError(f"{_listed(faults)} did not start ({reason}); see `ray status`")

    def __enter__(self) -> "ShardedIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        for replicas in self._shards.values():
            replicas.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def pinned(self) -> "ShardedQuery":
        """Start one query against the state of the index when it was opened."""
        return ShardedQuery(self)

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards."""
        return tuple(self._shards)

    @property
    def spec(self) -> ExtractorSpec:
        """Spec of the extractor that filled the index."""
        return self.manifest.spec

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def image_count(self) -> int:
        """Number of images."""
        return len(self)

    def require_images(self) -> None:
        """Raise IndexFormatError if there are no images."""
        if not len(self):
            raise IndexFormatError(f"index {self._folder} holds no images; add some with `vpr-dhe index`")

    def by_shard(self, ids: Sequence[int]) -> dict[str, list[int]]:
        """Group ids by the name of their shard."""
        return self._directory.by_shard(ids)

    def call(self, calls: Mapping[str, Call]) -> Answers[Any]:
        """Call several shards in parallel.

        Raises:
            ShardsMissingError: if one does not answer in time and the caller chose to fail.
        """
        pending = {name: self._threads.submit(self._shards[name].call, call) for name, call in calls.items()}
        answered: dict[str, Any] = {}
        failures: dict[str, str] = {}
        # Neither an error nor its future is kept here: its traceback refers to this frame, and this frame to the query.
        for name in calls:
            try:
                answered[name] = pending.pop(name).result()
            except NoAnswerError as error:
                failures[name] = str(error)
        if failures and self._missing == "fail":
            reason = next(iter(failures.values()))
            raise ShardsMissingError(
                f"{_listed(failures)} of index {self._folder} did not answer ({reason}); wait for the cluster, see "
                '`ray status`, open the index again, or accept partial answers with missing="report"'
            )
        return Answers(answered, frozenset(failures))


class ShardedQuery:
    """Query to a sharded index, which collects the names of the shards that did not answer."""

    def __init__(self, index: ShardedIndex) -> None:
        self._index = index
        self.missing_shards: frozenset[str] = frozenset()
        self.nearby: NearbyImages | None = None
        self._records: dict[int, ImageRecord] = {}
        self._sent: Any = None

    def restricted_to(self, near: Near) -> "ShardedQuery":
        """Copy of the query restricted to images in a circle; errors as for `search`."""
        restricted = ShardedQuery(self._index)
        found = restricted._call({name: lambda actor: actor.nearby.remote(near) for name in self._index.shards})
        counts = found.values()
        images, unplaced = sum(one.images for one in counts), sum(one.unplaced for one in counts)
        restricted.nearby = NearbyImages(near, images, unplaced)
        return restricted

    @property
    def grey_levels(self) -> GreyLevels:
        """Grey levels that 16-bit images and queries are read by."""
        return self._index.manifest.levels

    def image_ids(self) -> list[int]:
        """Raise BadInputError: no process has the ids of all shards."""
        raise BadInputError("a stream needs an index on this machine, not a sharded one; open it with Localizer.open")

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        return self._index.verifier is not None

    @property
    def adaptation(self) -> AdaptationInfo | None:
        """Adaptation of the vectors; None if they are searched as extracted."""
        manifest = self._index.manifest
        return manifest.adaptation if manifest.adaptation_name else None

    @property
    def codec(self) -> CodecInfo | None:
        """Codec that local maps are stored with."""
        return self._index.manifest.codec

    def search(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
    ) -> SearchResult:
        """Find the `count` images nearest to each query descriptor, or all if there are fewer.

        Raises:
            BadInputError: if the index is searched by binary codes, and `codes` is None.
            IndexFormatError: if there are no images.
            IndexDamagedError: if stored vectors fail their checksums.
            ShardsMissingError: if shards do not answer and the caller chose to fail.
        """
        self._index.require_images()
        count = min(count, len(self._index))
        # Passed by value, because the object store is slower for a few bytes.
        queries, bits = descriptors.float().cpu().numpy(), None if codes is None else codes.cpu().numpy()
        near = self.nearby and self.nearby.near
        found = self._call(
            {name: lambda actor: actor.search.remote(queries, count, near, bits) for name in self._index.shards}
        )
        return merge([SearchResult.empty(len(descriptors)), *found.values()], count)

    @property
    def shortlist_size(self) -> int | None:
        """Number of candidates to verify after a coarse pass; None verifies all of them."""
        verifier = self._index.verifier
        return verifier and verifier.shortlist_size

    def shift_votes(self, query: Features, ids: Sequence[int]) -> dict[int, float]:
        """Coarse pass, on the shards that hold the local maps; errors as for `verify`."""
        sent = self._send_features(query)
        return self._gather(ids, lambda actor, own: actor.shift_votes.remote(sent, own))

    def verify(self, image: QueryImage, query: Features, ids: Sequence[int]) -> dict[int, Verification]:
        """Verify a query against database images, each on the shard that holds its local map.

        Raises:
            BadInputError: if there is no image with one of the ids.
            IndexDamagedError: if stored data fails its checksum.
            ShardsMissingError: if shards do not answer and the caller chose to fail.
        """
        verifier = self._index.verifier
        if verifier is not None and verifier.estimator.uses_images:  # queries are sent with their pixels
            sent = import_ray().put(SentQuery.of(partial(decode_query, image), query))
        else:
            sent = self._send_features(query)
        found = self._gather(ids, lambda actor, own: actor.verify.remote(sent, own))
        self._records |= {id: record for id, (_, record) in found.items()}
        return {id: verification for id, (verification, _) in found.items()}

    def _send_features(self, query: Features) -> Any:
        """Store the query without its pixels once, and return a reference."""
        if self._sent is None:
            self._sent = import_ray().put(SentQuery.of(None, query))
        return self._sent

    def records(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Records of database images; those of verified images need no call. Errors as for `verify`."""
        unknown = [id for id in ids if id not in self._records]
        found = self._gather(unknown, lambda actor, own: actor.records.remote(own))
        known = self._records | found
        return {id: known[id] for id in ids if id in known}

    def _gather(self, ids: Sequence[int], call: Callable[[Actor, list[int]], Any]) -> dict[int, Any]:
        """Collect results for these images from their shards."""
        groups = self._index.by_shard(ids)
        answers = self._call({name: lambda actor, own=own: call(actor, own) for name, own in groups.items()})
        return {id: value for answer in answers.values() for id, value in answer.items()}

    def _call(self, calls: Mapping[str, Call]) -> Mapping[str, Any]:
        answers = self._index.call(calls)
        self.missing_shards |= answers.missing
        return answers.by_shard


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(names)
