"""Cache of the features of databases and queries between evaluations."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.errors import DatasetError, ImageError
from vpr_dhe.evaluation.query_features import FORMAT as QUERIES_FORMAT
from vpr_dhe.evaluation.query_features import StoredQueryFeatures
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.texture import RULE as TEXTURE_RULE
from vpr_dhe.images.opened import FULL_RANGE, read_file
from vpr_dhe.index.codec_fidelity import RULE as CODEC_RULE
from vpr_dhe.index.manifest import FORMAT
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.models.exported_model import EXTRACTOR, ExportedModel
from vpr_dhe.records import GreyLevels, Progress
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.prefetching import read_ahead
from vpr_dhe.runtime.text import none_of

_UNREADABLE = b"unreadable"


class FeatureCache:
    """Folder with one index per database and model, and the features of queries; it may be removed at any time.

    The key is a hash of the model, of its runtime, device and precision, and of all images in order, so results never
    depend on earlier evaluations or on files that have changed since. All images are read for it, which takes a small
    part of the time to extract them.
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
        bit_depth: str = AUTO,
        progress: Progress = lambda _: None,
    ) -> PlaceIndex:
        """Open the index of a database, or create it.

        Raises:
            DatasetError: if none of the images can be read.
        """
        facts = [FORMAT, *_extractor_facts(extractor), codec, index_type, bit_depth]
        folder = self.folder / _key(database, [*facts, CODEC_RULE] if codec == AUTO else facts)
        if PlaceIndex.has_images(folder):
            index = PlaceIndex.open(folder)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            index = PlaceIndex.create(
                folder, extractor.spec, database.folder, codec=codec, index_type=index_type, bit_depth=bit_depth
            )
        report = index.add(database.records, extractor, batch_size=batch_size, progress=progress)
        if not len(index):
            first = report.skipped[0]
            raise DatasetError(
                f"{none_of(len(database.records), 'database image')} in {database.folder} could be read "
                f"({first.path}: {first.reason})"
            )
        index.build_vector_files()
        return index

    def queries(
        self,
        queries: PlaceSplit,
        extractor: Extractor,
        *,
        batch_size: int = 8,
        grey_levels: GreyLevels = FULL_RANGE,
        progress: Progress = lambda _: None,
    ) -> StoredQueryFeatures:
        """Open the features of queries, and extract those that are missing.

        Args:
            queries: images of a data set.
            extractor: of the index's model.
            batch_size: images per call of the extractor.
            grey_levels: of 16-bit images, those of the index.
            progress: called with the number of queries just done.

        Raises:
            IndexBusyError: if another process is extracting the same queries.
        """
        facts = [QUERIES_FORMAT, *_extractor_facts(extractor), str(tuple(grey_levels))]
        folder = self.folder / f"queries-{_key(queries, facts)}"
        return StoredQueryFeatures.complete(
            folder, queries, extractor, batch_size=batch_size, grey_levels=grey_levels, progress=progress
        )


def _extractor_facts(extractor: Extractor) -> list[str]:
    """All that features depend on; an export has the fingerprint of the model that it was made of."""
    facts = [TEXTURE_RULE, extractor.spec.fingerprint, extractor.arithmetic]
    model = getattr(extractor, "model_file", None)
    return [*facts, *model.parts[EXTRACTOR].files.values()] if isinstance(model, ExportedModel) else facts


def _key(split: PlaceSplit, facts: Sequence[str]) -> str:
    """Name a part of the cache after the images' folder, with a hash of images and facts."""
    digest = hashlib.blake2b(digest_size=12)
    for fact in (*facts, str(split.folder.resolve())):
        digest.update(os.fsencode(fact) + b"\0")
    contents = read_ahead(read_file, (split.folder / record.path for record in split.records))
    for record, content in zip(split.records, contents, strict=True):
        digest.update(os.fsencode(record.path) + b"\0")
        digest.update(_UNREADABLE if isinstance(content, ImageError) else hashlib.blake2b(content).digest())
    return f"{split.folder.resolve().name}-{digest.hexdigest()}"
