"""Manifest of an index; files that it does not name are not part of the index."""

import os
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vpr_dhe.errors import IndexBusyError, IndexFormatError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.images.opened import FULL_RANGE
from vpr_dhe.index.adaptation.report import AdaptationInfo, AdaptationReport, Trial
from vpr_dhe.index.checked_json import read_document, write_document
from vpr_dhe.index.codec_fidelity import CodecTrials, Fidelity
from vpr_dhe.index.files import FileInfo
from vpr_dhe.index.image_folders import ImageFolders, MergedFolder
from vpr_dhe.index.paths import FILE_NAME, is_folder, require_manifest
from vpr_dhe.index.segments import SegmentInfo
from vpr_dhe.index.vectors import VectorFileInfo
from vpr_dhe.models.exported_model import without_zero_code_bits
from vpr_dhe.records import GreyLevels, Grid, Size
from vpr_dhe.runtime.choices import AUTO, Adapt, RankBy
from vpr_dhe.runtime.system import require_linux

FORMAT = "vpr-dhe index 2"
# Of an index that versions from before would not serve: with several folders or views of panoramas, whose images they
# would not find, or with binary codes, which they would not keep.
NEWER_FORMAT = "vpr-dhe index 3"
LOCK_NAME = "writer.lock"
# Key of the images folder as seen from the index, for an index and photos that are moved together.
_RELATIVE = "images_folder_relative"
# The same for a merged folder.
_MERGED_RELATIVE = "folder_relative"


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read while indexing, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class CodecInfo:
    """Codec of the local maps.

    `parameters` is the file of fitted parameters, if any; `images` the number of images it was fitted on; `trials` what
    `auto` measured, if it did; `agreement` what it measured by its rule of before: the share of matches that each codec
    keeps.
    """

    name: str
    images: int
    parameters: FileInfo | None = None
    agreement: Mapping[str, float] = field(default_factory=dict)
    trials: CodecTrials | None = None


@dataclass(frozen=True)
class CoveringFile:
    """A FAISS file over the vectors of some segments, their rows numbered in this order; it can be rebuilt.

    `adaptation` is the name of the adaptation of the vectors; None if they are as extracted.
    """

    file: FileInfo
    segments: tuple[str, ...]
    built: VectorFileInfo
    adaptation: str | None = None


@dataclass(frozen=True)
class Settings:
    """Choices of the user: codec and index type by name, or `auto`; order of verified candidates; adaptation.

    `adapt` tells whether `vpr-dhe index` adapts the index once it is filled.
    """

    codec: str = AUTO
    index_type: str = AUTO
    rank_by: RankBy = "inliers"
    adapt: Adapt = "off"


@dataclass(frozen=True)
class Manifest:
    """Content of an index.

    `images_folder` is the absolute folder that image paths are relative to, but for those that begin with the name of a
    folder in `merged_folders`. `codec` is None until the first images are added. Segments are in the order of their
    ids, which are never reused. `removed` is the file of removed ids that are still in a segment. `bit_depth` is how
    16-bit images are read, as given by the user; None in indexes from before that choice, which divide by 257.
    `grey_levels` is None until 16-bit images are added. `panorama_views` is the number of views that `vpr-dhe index`
    cuts each panorama into; 0 leaves panoramas whole.
    """

    spec: ExtractorSpec
    images_folder: str
    settings: Settings
    codec: CodecInfo | None = None
    next_id: int = 0
    segments: tuple[SegmentInfo, ...] = ()
    removed: FileInfo | None = None
    vector_files: tuple[CoveringFile, ...] = ()
    skipped: tuple[SkippedImage, ...] = ()
    adaptation: AdaptationInfo | None = None
    bit_depth: str | None = None
    grey_levels: GreyLevels | None = None
    merged_folders: tuple[MergedFolder, ...] = ()
    panorama_views: int = 0

    @property
    def folders(self) -> ImageFolders:
        """All folders of images."""
        return ImageFolders(self.images_folder, self.merged_folders)

    def with_folders(self, folders: ImageFolders) -> "Manifest":
        """Copy with other folders of images."""
        return replace(self, images_folder=folders.main, merged_folders=folders.merged)

    @property
    def codec_is_outdated(self) -> bool:
        """Whether `auto` chose the codec by its rule of before, which kept those that cost answers."""
        codec = self.codec
        return self.settings.codec == AUTO and codec is not None and bool(codec.agreement) and codec.trials is None

    @property
    def levels(self) -> GreyLevels:
        """Grey levels that 16-bit images are read by, of the index and of queries."""
        return FULL_RANGE if self.grey_levels is None else self.grey_levels

    @property
    def needs_grey_levels(self) -> bool:
        """Whether the first 16-bit images will set the grey levels."""
        return self.bit_depth == AUTO and self.grey_levels is None

    @property
    def count(self) -> int:
        """Number of images, without removed ones."""
        return sum(segment.count for segment in self.segments) - self.removed_count

    @property
    def removed_count(self) -> int:
        """Number of removed images that still take space."""
        return self.removed.bytes // 8 if self.removed else 0

    @property
    def state(self) -> tuple[FileInfo, ...]:
        """Files that belong to no segment: parameters of the codec, removed ids, and the adaptation."""
        files = (self.codec.parameters if self.codec else None, self.removed, *self.adaptation_files)
        return tuple(file for file in files if file)

    @property
    def adaptation_files(self) -> tuple[FileInfo, ...]:
        """Files of the adaptation; none if vectors are searched as extracted."""
        if self.adaptation is None or self.adaptation.parameters is None:
            return ()
        return (self.adaptation.parameters, *self.adaptation.terms)

    @property
    def adaptation_name(self) -> str | None:
        """Name of the adaptation of the vectors; None if they are searched as extracted."""
        return self.adaptation and self.adaptation.name

    @property
    def current_vector_files(self) -> tuple[CoveringFile, ...]:
        """FAISS files over the vectors as they are searched."""
        return tuple(file for file in self.vector_files if file.adaptation == self.adaptation_name)

    def with_segment(self, segment: SegmentInfo) -> "Manifest":
        """Copy with one more segment, in the order of ids."""
        place = bisect([info.first_id for info in self.segments], segment.first_id)
        return replace(self, segments=(*self.segments[:place], segment, *self.segments[place:]))

    def without_segments(self, names: Set[str]) -> "Manifest":
        """Copy without some segments, and without the FAISS files that cover them."""
        return replace(
            self,
            segments=tuple(info for info in self.segments if info.name not in names),
            vector_files=tuple(file for file in self.vector_files if names.isdisjoint(file.segments)),
        )

    def with_rewritten(self, names: Sequence[str], segment: SegmentInfo | None) -> "Manifest":
        """Copy with neighbouring segments replaced by one, or by none if no row was left."""
        rest = self.without_segments(set(names))
        if segment is None:
            return rest
        if segment.count == sum(info.count for info in self.segments if info.name in names):
            # All rows are kept in the same order, so FAISS files still fit.
            covering = [_with_run_replaced(file, tuple(names), segment.name) for file in self.vector_files]
            rest = replace(rest, vector_files=tuple(file for file in covering if file))
        return rest.with_segment(segment)

    def with_skipped(self, skipped: Sequence[SkippedImage], *, readable: Set[str]) -> "Manifest":
        """Copy with more skipped images, without those that could be read after all."""
        remembered = {image.path: image for image in (*self.skipped, *skipped)}
        return replace(self, skipped=tuple(image for path, image in remembered.items() if path not in readable))


def _with_run_replaced(file: CoveringFile, names: tuple[str, ...], name: str) -> CoveringFile | None:
    """Replace old segments of a FAISS file by a new one; None if it covers only some of them."""
    shared = [covered for covered in file.segments if covered in names]
    if not shared:
        return file
    if tuple(shared) != names:
        return None
    start = file.segments.index(names[0])
    return replace(file, segments=(*file.segments[:start], name, *file.segments[start + len(names) :]))


def publish(manifest: Manifest, folder: Path) -> None:
    """Replace the manifest of an index atomically and durably."""
    index = folder.resolve()
    merged = [asdict(one) | {_MERGED_RELATIVE: os.path.relpath(one.folder, index)} for one in manifest.merged_folders]
    content = asdict(manifest) | {
        _RELATIVE: os.path.relpath(manifest.images_folder, index),
        "merged_folders": merged,
        "spec": without_zero_code_bits(asdict(manifest.spec)),
    }
    is_newer = manifest.merged_folders or manifest.panorama_views or manifest.spec.code_bits
    write_document(folder, FILE_NAME, NEWER_FORMAT if is_newer else FORMAT, content)


@contextmanager
def lock_for_writing(folder: Path) -> Iterator[None]:
    """Lock an index for writing; the lock ends with the process.

    Raises:
        IndexBusyError: if another process is writing.
        UnsupportedSystemError: on systems other than Linux.
    """
    require_linux()
    import fcntl  # which Windows lacks

    with (folder / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IndexBusyError(f"another process is writing to {folder}; wait until it is done") from error
        yield


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    If a folder of images is gone, but one lies where it was as seen from the index, both were moved together, and the
    manifest names that one.

    Raises:
        IndexFormatError: if the folder is missing or not an index of this format.
        IndexDamagedError: if the manifest does not agree with its checksum.
    """
    path = require_manifest(folder)
    content = read_document(path, (FORMAT, NEWER_FORMAT), "index the images into a new folder")
    try:
        manifest = _from_json(content, folder)
    except (KeyError, TypeError) as error:
        raise IndexFormatError(
            f"{path} was written by another version ({error}); index the images into a new folder"
        ) from error
    return manifest


def _place(stored: str, relative: str | None, index: Path) -> str:
    """Place of a folder of images today, from its place when it was stored and the one as seen from the index."""
    moved = None if relative is None else index / relative
    if moved is None or is_folder(stored) or not is_folder(moved):
        return stored
    return str(moved.resolve())


def _from_json(content: dict[str, Any], index: Path) -> Manifest:
    spec = content["spec"]
    return Manifest(
        spec=ExtractorSpec(**(spec | {"grid": Grid(*spec["grid"]), "input_size": Size(*spec["input_size"])})),
        images_folder=_place(content["images_folder"], content.get(_RELATIVE), index),
        settings=Settings(**content["settings"]),
        codec=_codec_from_json(content["codec"]),
        next_id=content["next_id"],
        segments=tuple(_segment_from_json(segment) for segment in content["segments"]),
        removed=_file_from_json(content["removed"]),
        vector_files=tuple(
            CoveringFile(
                FileInfo(**row["file"]), tuple(row["segments"]), VectorFileInfo(**row["built"]), row.get("adaptation")
            )
            for row in content["vector_files"]
        ),
        skipped=tuple(SkippedImage(**image) for image in content["skipped"]),
        adaptation=_adaptation_from_json(content.get("adaptation")),
        bit_depth=content.get("bit_depth"),
        grey_levels=GreyLevels(*levels) if (levels := content.get("grey_levels")) else None,
        merged_folders=tuple(
            MergedFolder(row["name"], _place(row["folder"], row.get(_MERGED_RELATIVE), index))
            for row in content.get("merged_folders", ())
        ),
        panorama_views=content.get("panorama_views", 0),
    )


def _adaptation_from_json(row: dict[str, Any] | None) -> AdaptationInfo | None:
    if row is None:
        return None
    trials = tuple(Trial(**trial) for trial in row["report"]["trials"])
    return AdaptationInfo(
        report=AdaptationReport(**(row["report"] | {"trials": trials})),
        parameters=_file_from_json(row["parameters"]),
        terms=tuple(FileInfo(**file) for file in row["terms"]),
    )


def _segment_from_json(row: dict[str, Any]) -> SegmentInfo:
    files = tuple(FileInfo(**file) for file in row["files"])
    return SegmentInfo(row["name"], row["count"], row["first_id"], files)


def _codec_from_json(row: dict[str, Any] | None) -> CodecInfo | None:
    if row is None:
        return None
    parameters, trials = _file_from_json(row["parameters"]), _trials_from_json(row.get("trials"))
    return CodecInfo(row["name"], row["images"], parameters, row["agreement"], trials)


def _trials_from_json(row: dict[str, Any] | None) -> CodecTrials | None:
    if row is None:
        return None
    fidelity = {name: Fidelity(**measured) for name, measured in row["fidelity"].items()}
    return CodecTrials(row["verifier"], row["verifications"], row["inliers"], row["stored"], fidelity)


def _file_from_json(row: dict[str, Any] | None) -> FileInfo | None:
    return FileInfo(**row) if row else None
