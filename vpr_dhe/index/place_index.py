"""Index of images on disk, to which images are added and from which they are removed durably."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vpr_dhe.errors import BadInputError, IndexFormatError
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.images.names import composed
from vpr_dhe.images.view_names import split_view
from vpr_dhe.index.adaptation.fitting import fit
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.pairs import Pairs
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.adaptation_update import MapVectors, records_of
from vpr_dhe.index.add_report import AddReport
from vpr_dhe.index.changes import changes_between
from vpr_dhe.index.checking import CheckReport, check
from vpr_dhe.index.grey_levels import parse_bit_depth
from vpr_dhe.index.image_folders import renamed_records
from vpr_dhe.index.ingest import Source, reading
from vpr_dhe.index.manifest import LOCK_NAME, Manifest, Settings, lock_for_writing, publish, read_manifest
from vpr_dhe.index.merging import MergeReport
from vpr_dhe.index.paths import FILE_NAME
from vpr_dhe.index.relocation import moved_folder
from vpr_dhe.index.rows import Ids
from vpr_dhe.index.search import SearchResult
from vpr_dhe.index.settings import (
    SettingsChoice,
    require_bit_depth,
    require_known,
    require_stored_codec,
    require_usable,
)
from vpr_dhe.index.snapshot import CALIBRATIONS, SEGMENTS, STATE, VECTOR_FILES, Snapshot, make_folders, open_newest
from vpr_dhe.index.vector_files import Announce, without_announcement
from vpr_dhe.index.writer import IndexWriter
from vpr_dhe.records import Frame, ImageRecord, Progress, StrPath
from vpr_dhe.runtime.choices import AUTO, MAX_PIXELS, Adapt, RankBy
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX, sync_folder


class PlaceIndex:
    """Features of database images, on disk.

    Each image has an id that is never reused. Reading methods see the state that this object last opened, wrote or
    refreshed, whatever other processes do. Several threads may read while one writes; one process at a time may write.
    `Localizer` pins the `snapshot`, so that one query sees one state; `search` searches the current snapshot.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @classmethod
    def create(
        cls,
        folder: StrPath,
        spec: ExtractorSpec,
        images_folder: StrPath,
        *,
        codec: str = AUTO,
        index_type: str = AUTO,
        rank_by: RankBy = "inliers",
        adapt: Adapt = "off",
        bit_depth: str = AUTO,
        panorama_views: int = 0,
    ) -> "PlaceIndex":
        """Make an empty index.

        Args:
            folder: folder of the index: a new or an empty one, or an index that never held an image.
            spec: spec of the extractor that will fill it.
            images_folder: folder that image paths are relative to.
            codec: codec of local maps; `auto` measures codecs on the first images that are added.
            index_type: type of vector search; `auto` chooses by the number of vectors.
            rank_by: order of verified candidates that queries take unless they say otherwise.
            adapt: whether `vpr-dhe index` adapts the index to its map once it is filled.
            bit_depth: grey levels of 16-bit images and queries: a number of bits such as 12, LOW:HIGH such as
                7000:9000, or `auto`, which finds them from the first 16-bit images that are added.
            panorama_views: number of views that `vpr-dhe index` cuts each panorama into; 0 leaves panoramas whole.

        Raises:
            BadInputError: if `folder` holds anything else, codec or index type are unknown, the model makes no codes
                for the index type, or `bit_depth` is not valid.
        """
        folder, settings = Path(folder), Settings(codec, index_type, rank_by, adapt)
        cls.require_creatable(folder, spec, settings, bit_depth)
        folder.mkdir(parents=True, exist_ok=True)
        root = str(Path(images_folder).resolve())
        manifest = Manifest(
            spec,
            root,
            settings,
            bit_depth=bit_depth,
            grey_levels=parse_bit_depth(bit_depth),
            panorama_views=panorama_views,
        )
        with lock_for_writing(folder):
            if not _is_vacant(folder):
                raise BadInputError(f"{folder} was just made by another process; run the command again")
            make_folders(folder)
            publish(manifest, folder)
        sync_folder(folder.parent)
        return cls(Snapshot(folder, manifest))

    @staticmethod
    def require_creatable(folder: Path, spec: ExtractorSpec, settings: Settings, bit_depth: str) -> None:
        """Raise BadInputError if `create` would."""
        require_usable(settings, spec)
        parse_bit_depth(bit_depth)
        if folder.exists() and not _is_vacant(folder):
            raise BadInputError(f"{folder} already exists; give the name of a new folder for the index")

    @staticmethod
    def has_images(folder: StrPath) -> bool:
        """Whether a folder holds an index that has images, or had them before they were removed."""
        return not _is_vacant(Path(folder)) and (Path(folder) / FILE_NAME).exists()

    @staticmethod
    def exists(folder: StrPath) -> bool:
        """Whether a folder holds an index, with or without images."""
        return (Path(folder) / FILE_NAME).exists()

    @staticmethod
    def empty_manifest(folder: StrPath) -> Manifest | None:
        """Manifest of an index that was created but never got an image, as by a first run cut short; else None."""
        folder = Path(folder)
        return read_manifest(folder) if (folder / FILE_NAME).exists() and _is_vacant(folder) else None

    @classmethod
    def open(cls, folder: StrPath, *, gpu: bool = False) -> "PlaceIndex":
        """Open an index; checksums of vectors are checked on the first search, those of other records on each read.

        With `gpu`, FAISS files of types that support it are searched on a GPU, if FAISS finds one.

        Raises:
            IndexFormatError: if the folder is not an index of this format.
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        return cls(open_newest(Path(folder), gpu=gpu))

    def refresh(self) -> bool:
        """Load what other processes have written since; returns whether anything has changed.

        Raises:
            IndexReplacedError: if the folder holds an index of another model now; this one stays readable.
            IndexFormatError: if the folder is not an index any more.
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        before, self._snapshot = self._snapshot, open_newest(self.folder, self._snapshot)
        return self._snapshot is not before

    @property
    def folder(self) -> Path:
        """Folder of the index."""
        return self._snapshot.folder

    @property
    def snapshot(self) -> Snapshot:
        """Current state, which stays readable as it is."""
        return self._snapshot

    @property
    def manifest(self) -> Manifest:
        """Manifest of the current state."""
        return self._snapshot.manifest

    @property
    def spec(self) -> ExtractorSpec:
        """Spec of the extractor that filled the index."""
        return self.manifest.spec

    def __len__(self) -> int:
        return len(self._snapshot)

    def configure(
        self,
        *,
        codec: str | None = None,
        index_type: str | None = None,
        rank_by: RankBy | None = None,
        adapt: Adapt | None = None,
        bit_depth: str | None = None,
    ) -> None:
        """Change the settings of the index; None keeps the current value.

        `bit_depth` can be set until there are 16-bit images; then it is only compared with that of the index. Call
        `build_vector_files` or `adapt` to apply a new index type or adaptation.

        Raises:
            BadInputError: if a name is unknown, images are stored with another codec or bit depth already, or the model
                makes no codes for the index type.
        """
        if bit_depth is not None:
            self._set_bit_depth(bit_depth)
        choice = SettingsChoice(codec, index_type, rank_by, adapt)
        if choice == SettingsChoice():
            return
        require_usable(choice.over(self.manifest.settings), self.spec)
        with self.writing() as writer:
            require_stored_codec(self.folder, writer.manifest, codec)
            writer.publish(replace(writer.manifest, settings=choice.over(writer.manifest.settings)))

    def _set_bit_depth(self, bit_depth: str) -> None:
        levels = parse_bit_depth(bit_depth)
        if levels is not None and self.manifest.needs_grey_levels:
            with self.writing() as writer:
                if writer.manifest.needs_grey_levels:  # another process may have found them
                    writer.publish(replace(writer.manifest, bit_depth=bit_depth, grey_levels=levels))
        require_bit_depth(self.folder, self.manifest, bit_depth)

    def relative_to_root(
        self, records: Sequence[ImageRecord], folder: StrPath, *, part: bool = False
    ) -> Sequence[ImageRecord]:
        """Records with paths in the index, made from records with paths relative to one of its images folders.

        Args:
            records: images of the folder.
            folder: the folder that their paths are relative to.
            part: accept a folder inside an images folder, too.

        Raises:
            BadInputError: if the folder is not an images folder of the index or, with `part`, inside one; or if a path
                begins with the name of another images folder.
        """
        return renamed_records(self.manifest.folders, records, folder, part=part, index=self.folder)

    def move_images(self, folder: StrPath) -> str:
        """Set the images folder, after the photos were moved or copied with their names; nothing is extracted.

        With several images folders, the one whose images `folder` contains is replaced. Returns the previous path.

        Raises:
            BadInputError: if less than half of the indexed images, or of a sample of many, are unchanged in the folder.
            IndexBusyError: if another process is writing.
        """
        moved = Path(folder).resolve()
        with self.writing() as writer:
            before = moved_folder(writer.snapshot, moved)
            before.require_unchanged(folder)
            folders = writer.manifest.folders.moved(before.folder, moved)
            writer.publish(writer.manifest.with_folders(folders))
        return before.folder

    def add(
        self,
        records: Sequence[ImageRecord],
        extractor: Extractor,
        *,
        batch_size: int = 8,
        strict: bool = False,
        workers: int = 0,
        max_pixels: int = MAX_PIXELS,
        progress: Progress = lambda _: None,
    ) -> AddReport:
        """Add images and update those that have changed.

        New images are extracted. Images whose file has changed are extracted again and replaced. Positions, headings
        and times of the others are updated.

        Images are stored segment by segment, so a crash loses at most the current one. The first call on an index that
        has no codec yet stores nothing until it has extracted 256 images, or all if there are fewer, because the codec
        is fitted to them. A keyboard interrupt loses nothing that was extracted.

        Args:
            records: images, with paths relative to the index's images folder.
            extractor: extractor with the fingerprint of the index.
            batch_size: images per call of the extractor.
            strict: make the first unreadable image an error instead of skipping it.
            workers: processes that decode images; 0 uses threads of this process. With processes, scripts need
                `if __name__ == "__main__"`.
            max_pixels: largest number of pixels of an image that is decoded; larger ones count as unreadable.
            progress: called with the number of images just done.

        Raises:
            IndexFormatError: if the features of the extractor cannot be compared with those of the index.
            IndexBusyError: if another process is writing.
            ImageError: with `strict`, at the first image that cannot be read.
            WorkerLostError: if a process that decodes ends unexpectedly.
        """
        require_same_features(self.spec, extractor.spec)
        with self.writing() as writer, reading(workers) as read_ahead:
            # Another process may have replaced an empty index meanwhile.
            require_same_features(writer.manifest.spec, extractor.spec)
            changes = changes_between(writer.snapshot, records)
            progress(changes.unchanged + len(changes.updated))
            writer.update(changes)
            levels = writer.settle_grey_levels(changes.to_extract)
            source = Source(self.manifest.folders, extractor, batch_size, strict, read_ahead, levels, max_pixels)
            sealed = writer.add(changes, source, progress)
        return AddReport.of(changes, sealed)

    def merge(self, other: "PlaceIndex", *, progress: Progress = lambda _: None) -> MergeReport:
        """Add the images of another index with their features and positions; no image is extracted, or needs to exist.

        Both keep their folders of images: paths of those whose folder is new to this index begin with its name. Images
        that are the same files as images of this index are left out. Everything is added in one step: a merge that is
        cut short leaves this index as it was. Its calibrations no longer hold and are dropped; its adaptation is
        extended to the new images, and `adapt` adapts to all.

        Args:
            other: index made with the same model, codec and grey levels of 16-bit images; it is only read.
            progress: called with the number of images just done.

        Raises:
            BadInputError: if model, codec or grey levels differ, or both are the same index.
            IndexBusyError: if another process is writing.
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        if other.folder.resolve() == self.folder.resolve():
            raise BadInputError(f"{other.folder} is the index itself; give another index to merge into it")
        if not len(other):
            raise BadInputError(f"index {other.folder} holds no images; add some with `vpr-dhe index`")
        with self.writing() as writer:
            report = writer.merge(other.snapshot, progress)
            if not report.added:
                return report
            return replace(report, dropped_calibrations=_drop_calibrations(self.folder))

    def remove(self, ids: Ids) -> None:
        """Remove images from search; `compact` frees their space.

        Raises:
            BadInputError: if one of the ids is unknown; nothing is removed then.
            IndexBusyError: if another process is writing.
        """
        with self.writing() as writer:
            writer.remove(np.unique(np.array(ids, np.int64)))

    def compact(self, *, codec: str | None = None, announce: Announce = without_announcement) -> None:
        """Merge small segments, free the space of removed images, and build FAISS files.

        With `codec`, local maps are converted first; `auto` measures again. Precision that a coarser codec has lost is
        not restored. If `auto` chose the codec on few images, it chooses again once there are more.

        Raises:
            BadInputError: if the codec is unknown, or does not support this index.
            IndexBusyError: if another process is writing.
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        if codec is not None:
            require_known(replace(self.manifest.settings, codec=codec))
        with self.writing() as writer:
            if writer.manifest.count and (codec is not None or writer.codec_needs_remeasuring):
                writer.recode(codec or AUTO)
            writer.compact()
            if not writer.manifest.count and codec is not None:
                settings = replace(writer.manifest.settings, codec=codec)
                writer.publish(replace(writer.manifest, settings=settings, codec=None))
            writer.build_vector_files(announce)
            writer.collect_garbage()

    def adapt(
        self,
        verify: Callable[[Snapshot], Pairs] | None = None,
        *,
        announce: Announce = without_announcement,
    ) -> AdaptationReport:
        """Adapt the vectors to their map, as far as that helps on held-out places of the map; see `adaptation.fitting`.

        Earlier adaptations are replaced. Stored vectors stay as they were extracted. Calibrations no longer hold.

        Args:
            verify: finds pairs of images of one place by geometry; called for maps without positions.
            announce: as for `build_vector_files`.

        Raises:
            BadInputError: if the index holds no images.
            IndexBusyError: if another process is writing.
            IndexDamagedError: if stored data does not agree with its checksum.
        """
        with self.writing() as writer:
            snapshot = writer.snapshot
            if not len(snapshot):
                raise BadInputError(f"index {self.folder} holds no images to adapt to; add some with `vpr-dhe index`")
            vectors, images = MapVectors(snapshot), MapImages.of(records_of(snapshot, snapshot.ids))
            verified = None if images.have_positions or verify is None else verify(snapshot)
            fitted = fit(vectors, images, unit_norm=snapshot.manifest.spec.unit_norm, verified=verified)
            writer.adapt(fitted, vectors, images, announce)
        return fitted.report

    def unadapt(self, *, announce: Announce = without_announcement) -> None:
        """Drop the adaptation, so that vectors are searched as they were extracted; errors as for `adapt`."""
        with self.writing() as writer:
            writer.unadapt(announce)

    def check(self) -> CheckReport:
        """Compare all files with their checksums; `checking.check` also does so for an index that cannot be opened."""
        return check(self.folder)

    def build_vector_files(self, *, announce: Announce = without_announcement) -> None:
        """Build FAISS files of the index type if too many vectors are not in one.

        Search works without them, but is slow in a large index; `add` does not build them. `announce` is called with
        the type and the number of vectors before each file, which may take minutes.
        """
        with self.writing() as writer:
            writer.build_vector_files(announce)

    @contextmanager
    def writing(self) -> Generator[IndexWriter, None, None]:
        """Lock the index and write from its newest state; this object sees every step.

        Raises:
            IndexBusyError: if another process is writing.
        """
        with lock_for_writing(self.folder):
            newest = open_newest(self.folder, self._snapshot)
            self._set_snapshot(newest)
            yield IndexWriter(newest, self._set_snapshot)

    def _set_snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def search(
        self,
        descriptors: Float[Tensor, "queries dimension"],
        count: int,
        *,
        codes: UInt8[Tensor, "queries code_bytes"] | None = None,
        adapted: bool = True,
    ) -> SearchResult:
        """Find the `count` images nearest to each query descriptor, or all if there are fewer.

        With `adapted=False`, descriptors are compared as extracted; in an adapted index that is an exhaustive search,
        because the FAISS files hold adapted vectors. An index of type `binary-codes` is searched by the `codes` of the
        queries, as in their `Features`.

        Raises:
            BadInputError: if the index is searched by binary codes, and `codes` is None.
            IndexFormatError: if the index holds no images.
            IndexDamagedError: if stored vectors do not agree with their checksums.
        """
        return self._snapshot.search(descriptors, count, codes=codes, adapted=adapted)

    def descriptors(self, ids: Ids) -> Float[Tensor, "images dimension"]:
        """Read the global descriptors of images, in this order; errors as for `local_maps`."""
        return self._snapshot.descriptors(ids)

    def local_maps(self, ids: Ids) -> Float[Tensor, "maps cells dimension"]:
        """Read the local maps of images, in this order.

        Raises:
            BadInputError: if one of the ids is unknown.
            IndexDamagedError: if one does not agree with its checksum.
        """
        return self._snapshot.local_maps(ids)

    @property
    def ids(self) -> Int64[np.ndarray, " images"]:
        """Ids of all images, ascending."""
        return self._snapshot.ids

    def find(self, path: str) -> int | None:
        """Look up the id of an image by its path in the index, relative to the images folder; None if there is none."""
        return self._snapshot.find(path)

    def ids_of(self, paths: Iterable[StrPath]) -> list[int]:
        """Ids of images by path in the index, in any unambiguous Unicode form, or by absolute path.

        The path of a panorama stands for all of its views.

        Raises:
            BadInputError: if the index holds no image of a path.
        """
        folders, respelt, views = self.manifest.folders, dict[str, list[int]](), dict[str, list[int]]()
        found: list[int] = []
        for path in paths:
            name = folders.name_of(path)
            id = self.find(name)
            if id is None and not respelt:
                for other in self.ids.tolist():
                    known = self.image(other).path
                    # Other systems write some letters in another Unicode form.
                    respelt.setdefault(composed(known), []).append(other)
                    if view := split_view(known):
                        views.setdefault(composed(view[0]), []).append(other)
            possible = [id] if id is not None else respelt.get(composed(name), [])
            if len(possible) > 1 or not (possible or composed(name) in views):
                raise self._no_image(path)
            found += possible or views[composed(name)]
        return found

    def _no_image(self, path: StrPath) -> BadInputError:
        folders = self.manifest.folders
        merged = "".join(f", or begin with {one.name}/ for {one.folder}" for one in folders.merged)
        return BadInputError(f"{self.folder} holds no image {path}; paths are relative to {folders.main}{merged}")

    def ids_missing_from(
        self, records: Sequence[ImageRecord], folder: StrPath | None = None
    ) -> Int64[np.ndarray, " images"]:
        """Ids of the images, or of those in one of the images folders, that are not among these records, by path."""
        absent = np.setdiff1d(self.ids, self._snapshot.find_all(record.path for record in records))
        folders = self.manifest.folders
        if folder is None or not folders.merged:
            return absent
        roots = folders.within(folder)
        return np.array([id for id in absent.tolist() if folders.owner(self.image(id).path) in roots], np.int64)

    def duplicates(self) -> list[tuple[int, ...]]:
        """Groups of ids of images with the same file content."""
        return self._snapshot.duplicates()

    def image(self, id: int) -> ImageRecord:
        """Read the record of an image."""
        return self._snapshot.image(id)

    def frame(self, id: int) -> Frame:
        """Read the frame of an image: its decoded size and the extractor's input size."""
        return self._snapshot.frame(id)

    def image_path(self, id: int) -> Path:
        """Absolute path of an image when it was indexed."""
        return self._snapshot.image_path(id)


def require_same_features(stored: ExtractorSpec, given: ExtractorSpec) -> None:
    """Check that an extractor's features can be compared with those of an index.

    Raises:
        IndexFormatError: if the fingerprints differ.
    """
    if given.fingerprint != stored.fingerprint:
        raise IndexFormatError(
            f"the index was made with model {stored.model!r} ({stored.fingerprint[:12]}), not with "
            f"{given.model!r} ({given.fingerprint[:12]}); use that model, or index the images again"
        )


def _drop_calibrations(folder: Path) -> tuple[str, ...]:
    """Delete the calibrations of an index; returns the names of their verifiers."""
    paths = sorted((folder / CALIBRATIONS).glob("*.json"))
    for path in paths:
        path.unlink()
    return tuple(path.stem for path in paths)


def _is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, or holds an index that never held an image."""
    if not folder.is_dir():
        return False
    parts = {FILE_NAME, f"{FILE_NAME}{TEMPORARY_SUFFIX}", LOCK_NAME, SEGMENTS, VECTOR_FILES, STATE}
    if {path.name for path in folder.iterdir()} - parts:
        return False
    # Ids are never reused, so next_id is 0 only if the index never held an image.
    return not (folder / FILE_NAME).exists() or read_manifest(folder).next_id == 0
