"""Assignment of the segments of an index to shards."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from vpr_dhe.index.manifest import Manifest


@dataclass(frozen=True)
class Shard:
    """Part of an index: the manifest restricted to its segments and the FAISS files that cover them.

    `removed` of the manifest is that of the whole index.
    """

    name: str
    manifest: Manifest


def assign(manifest: Manifest, shards: int) -> tuple[Shard, ...]:
    """Divide an index into at most `shards` shards with about the same number of images each.

    Segments that share a FAISS file stay together, so there may be fewer shards; none is empty.
    """
    counts = {fact.name: fact.count for fact in manifest.segments}
    covered = [file.segments for file in manifest.vector_files]
    alone = counts.keys() - {name for group in covered for name in group}
    groups = [*covered, *((name,) for name in counts if name in alone)]
    loads = [0] * shards
    members: list[set[str]] = [set() for _ in range(shards)]
    # Longest processing time first: at most 4/3 of the optimal load (Graham, 1969).
    for group in sorted(groups, key=lambda group: -sum(counts[name] for name in group)):
        lightest = loads.index(min(loads))
        loads[lightest] += sum(counts[name] for name in group)
        members[lightest].update(group)
    filled = [names for names in members if names]
    return tuple(
        Shard(f"shard {number} of {len(filled)}", _restricted(manifest, names))
        for number, names in enumerate(filled, start=1)
    )


def _restricted(manifest: Manifest, names: set[str]) -> Manifest:
    return manifest.without_segments({fact.name for fact in manifest.segments} - names)


class Directory:
    """Lookup of the shard that holds an image, by id."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        owners = sorted((fact.first_id, shard.name) for shard in shards for fact in shard.manifest.segments)
        self._first_ids = [first_id for first_id, _ in owners]
        self._names = [name for _, name in owners]

    def by_shard(self, ids: Sequence[int]) -> dict[str, list[int]]:
        """Group ids of indexed images by the name of their shard."""
        groups: dict[str, list[int]] = {}
        for id in ids:
            groups.setdefault(self._names[bisect(self._first_ids, id) - 1], []).append(id)
        return groups
