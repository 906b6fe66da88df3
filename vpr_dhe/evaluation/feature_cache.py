"""Features of database images, kept from one evaluation to the next."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.features.base import Extractor
from vpr_dhe.index.manifest import AUTO, FORMAT
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.places.base import PlaceSplit
from vpr_dhe.records import Progress


class FeatureCache:
    """One index for each database and model, in a folder of the caller's choice.

    An index knows its images by content: a file that has changed is extracted again, one that was only touched is not.
    A data set read under another protocol, with other images in its database, gets an index of its own, so that no
    result depends on what was evaluated before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def index(
        self,
        database: PlaceSplit,
        extractor: Extractor,
        *,
        batch_size: int = 8,
        codec: str = AUTO,
        index_type: str = AUTO,
        progress: Progress = lambda _: None,
    ) -> PlaceIndex:
        """Open the index of a database, made or brought up to date where needed."""
        folder = self.folder / _key(database, [FORMAT, extractor.spec.fingerprint, codec, index_type])
        if PlaceIndex.is_started(folder):
            index = PlaceIndex.open(folder)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            index = PlaceIndex.create(folder, extractor.spec, database.folder, codec=codec, index_type=index_type)
        index.add(database.records, extractor, batch_size=batch_size, progress=progress)
        index.build_vector_files()
        return index


def _key(database: PlaceSplit, facts: Sequence[str]) -> str:
    """A folder name that readably begins like the images' folder, and differs for other images or facts."""
    digest = hashlib.sha256()
    for fact in (*facts, str(database.folder.resolve()), *(record.path for record in database.records)):
        digest.update(fact.encode(errors="surrogateescape") + b"\0")
    return f"{database.folder.resolve().name}-{digest.hexdigest()[:16]}"
