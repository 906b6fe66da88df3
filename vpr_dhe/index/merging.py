"""Merging of one index into another: images with their features, without extraction."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.compaction import COMPACT_IMAGES, Recoding, grouped
from vpr_dhe.index.image_folders import ImageFolders, MergedFolder
from vpr_dhe.index.manifest import Manifest, SkippedImage
from vpr_dhe.index.segments import Segment, SegmentInfo, SegmentWriter, StoredImage
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import Progress


@dataclass(frozen=True)
class MergeReport:
    """Result of `PlaceIndex.merge`.

    Args:
        added: number of images that were added.
        known: number of images that are the same files as images of the index, and were left out.
        folders: folders of images that are new to the index, with their names in it.
        encoded_again: whether local maps were encoded again, since the codecs are fitted to different images.
        dropped_calibrations: names of the verifiers whose calibrations were dropped.
    """

    added: int
    known: int
    folders: tuple[MergedFolder, ...]
    encoded_again: bool = False
    dropped_calibrations: tuple[str, ...] = ()


def require_mergeable(own: Manifest, other: Manifest, folder: Path, other_folder: Path) -> None:
    """Check that the images of one index can be merged into another.

    Raises:
        BadInputError: if model, codec of local maps, grey levels of 16-bit images or views of panoramas differ.
    """
    if own.spec.fingerprint != other.spec.fingerprint:
        raise BadInputError(
            f"{folder} was made with model {own.spec.model!r} ({own.spec.fingerprint[:12]}), and {other_folder} with "
            f"{other.spec.model!r} ({other.spec.fingerprint[:12]}), so their images cannot be compared; index the "
            "photos of one with the model of the other"
        )
    if own.codec and other.codec and own.codec.name != other.codec.name:
        raise BadInputError(
            f"{folder} stores local maps as {own.codec.name}, and {other_folder} as {other.codec.name}; run `vpr-dhe "
            f"compact {other_folder} --codec {own.codec.name}` first"
        )
    if other.panorama_views not in (0, own.panorama_views):
        raise BadInputError(
            f"{folder} takes {own.panorama_views or 'no'} views of a panorama, and {other_folder} takes "
            f"{other.panorama_views}; index the photos of one again, with --panorama-views of the other"
        )
    if _knows_grey_levels(own) and _knows_grey_levels(other) and own.levels != other.levels:
        raise BadInputError(
            f"{folder} reads 16-bit images from {own.levels.low} to {own.levels.high}, and {other_folder} from "
            f"{other.levels.low} to {other.levels.high}; index the photos of one again into a new folder with "
            "--bit-depth LOW:HIGH of the other"
        )


def _knows_grey_levels(manifest: Manifest) -> bool:
    """Whether 16-bit images that an index may hold were read by a certain rule."""
    return manifest.bit_depth is None or manifest.grey_levels is not None


def with_rules_of(own: Manifest, other: Manifest) -> Manifest:
    """Copy with the grey levels of another index, if this one has no 16-bit images yet."""
    if _knows_grey_levels(own) or not _knows_grey_levels(other):
        return own
    return replace(own, bit_depth=other.bit_depth, grey_levels=other.grey_levels)


def joined_folders(own: Snapshot, other: Snapshot) -> ImageFolders:
    """Folders of two indexes; one that is in a folder of the first needs no name of its own."""
    folders = own.manifest.folders
    taken: set[str] | None = None
    for folder in other.manifest.folders.all:
        if folders.prefix_of(folder) is None:
            taken = _first_parts(own) if taken is None else taken
            folders = folders.with_folder(folder, taken)
    return folders


def _first_parts(snapshot: Snapshot) -> set[str]:
    """First parts of the paths of an index, and of what its main folder holds today."""
    parts = {snapshot.image(id).path.partition("/")[0] for id in snapshot.ids.tolist()}
    main = Path(snapshot.manifest.images_folder)
    return parts | ({entry.name for entry in main.iterdir()} if main.is_dir() else set())


class Merge:
    """Copies the images of one index into new segments of another, which its manifest does not name yet.

    Args:
        own: state that is added to.
        other: state whose images are added.
        folders: folders of both, as from `joined_folders`.
        recoding: conversion of local maps, if any.
    """

    def __init__(self, own: Snapshot, other: Snapshot, folders: ImageFolders, recoding: Recoding | None) -> None:
        self._own, self._other, self._recoding = own, other, recoding
        self._namers = {
            root: namer for root in other.manifest.folders.all if (namer := folders.namer(root)) is not None
        }
        self._added: set[str] = set()
        self.next_id, self.known = own.manifest.next_id, 0

    @property
    def added(self) -> int:
        """Number of images that were copied."""
        return len(self._added)

    def segments(self, folder: Path, progress: Progress) -> Iterator[SegmentInfo]:
        """Write one segment after the other.

        Raises:
            IndexDamagedError: if a row does not agree with its checksums.
        """
        for group in grouped(self._other.segments, lambda segment: len(segment.ids), COMPACT_IMAGES):
            info = _written(folder, self.next_id, self._renamed(group, progress))
            if info is not None:
                yield info

    def _renamed(self, group: list[Segment], progress: Progress) -> Iterator[StoredImage]:
        for segment in group:
            for row in segment.live(self._other.removed).nonzero()[0].tolist():
                stored = self._new(segment.stored(row))
                progress(1)
                if stored is not None:
                    yield stored

    def _new(self, stored: StoredImage) -> StoredImage | None:
        """The image under its new path and id; None if the index holds the same file."""
        path = self.name(stored.image.record.path)
        if self._own.find(path) is not None or path in self._added:
            self.known += 1
            return None
        self._added.add(path)
        image = replace(stored.image, record=replace(stored.image.record, path=path))
        stored = replace(stored, id=self.next_id, image=image)
        self.next_id += 1
        return self._recoding(stored) if self._recoding else stored

    def name(self, path: str) -> str:
        """Path of an image of the other index in the joined one."""
        folders = self._other.manifest.folders
        root = folders.owner(path)
        return self._namers[root](folders.locate(path).relative_to(root).as_posix())

    @property
    def skipped(self) -> tuple[SkippedImage, ...]:
        """Images that the other index could not read, under their new paths."""
        skipped = self._other.manifest.skipped
        return tuple(SkippedImage(self.name(image.path), image.reason) for image in skipped)


def _written(folder: Path, first_id: int, images: Iterator[StoredImage]) -> SegmentInfo | None:
    writer = SegmentWriter(folder, first_id)
    try:
        for stored in images:
            writer.append(stored)
        return writer.seal()
    except BaseException:
        writer.discard()
        raise
