"""Check of an index against its checksums, and repair."""

from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.errors import IndexDamagedError
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.checked_json import is_sound_document
from vpr_dhe.index.files import is_sound
from vpr_dhe.index.manifest import CodecInfo, Manifest, lock_for_writing, publish, read_manifest
from vpr_dhe.index.segments import SegmentInfo
from vpr_dhe.index.snapshot import CALIBRATIONS, SEGMENTS, STATE, VECTOR_FILES
from vpr_dhe.index.tombstones import read_removed, with_removed
from vpr_dhe.records import GreyLevels


@dataclass(frozen=True)
class CheckReport:
    """Result of `check`; `damaged` names files relative to the index.

    `grey_levels` are those of 16-bit images; None where none were found yet (then `bit_depth` is set), or where an
    index from before that choice divides them by 257. `folders` are the folders of images, the main one first.
    `codec_is_outdated` is as in `Manifest`.
    """

    images: int
    skipped: int
    segments: int
    damaged: tuple[str, ...]
    model: str
    adaptation: AdaptationReport | None = None
    bit_depth: str | None = None
    grey_levels: GreyLevels | None = None
    folders: tuple[str, ...] = ()
    codec: CodecInfo | None = None
    codec_is_outdated: bool = False


def check(folder: Path) -> CheckReport:
    """Compare every stored file of an index with its size and checksum, without loading it.

    Raises:
        IndexFormatError, IndexDamagedError: if the manifest cannot be read.
    """
    while True:
        manifest = read_manifest(folder)
        damaged = _damaged_files(folder, manifest)
        # Files that another process has replaced meanwhile are not damaged.
        if not damaged or read_manifest(folder) == manifest:
            break
    return CheckReport(
        manifest.count,
        len(manifest.skipped),
        len(manifest.segments),
        tuple(damaged),
        manifest.spec.model,
        manifest.adaptation and manifest.adaptation.report,
        manifest.bit_depth,
        manifest.grey_levels,
        manifest.folders.all,
        manifest.codec,
        manifest.codec_is_outdated,
    )


def _damaged_files(folder: Path, manifest: Manifest) -> list[str]:
    """List files, relative to the index, that do not agree with their checksums."""
    damaged = [
        f"{SEGMENTS}/{info.name}/{file.name}"
        for info in manifest.segments
        for file in info.files
        if not is_sound(folder / SEGMENTS / info.name, file)
    ]
    vector_files = [covering.file for covering in manifest.vector_files]
    damaged += [f"{VECTOR_FILES}/{file.name}" for file in vector_files if not is_sound(folder / VECTOR_FILES, file)]
    damaged += [f"{STATE}/{file.name}" for file in manifest.state if not is_sound(folder / STATE, file)]
    return damaged + [f"{CALIBRATIONS}/{path.name}" for path in _damaged_calibrations(folder)]


def _damaged_calibrations(folder: Path) -> list[Path]:
    """List damaged calibrations, which the manifest does not name and which hold their own checksums."""
    return [path for path in sorted((folder / CALIBRATIONS).glob("*.json")) if not is_sound_document(path)]


def repair(folder: Path) -> int:
    """Drop damaged segments, FAISS files, calibrations and adaptation; returns the number of images dropped.

    Indexing the images folder again extracts exactly these, adapts, and rebuilds the FAISS files.

    Raises:
        IndexBusyError: if another process is writing.
        IndexDamagedError: if a file that all images need is damaged.
    """
    with lock_for_writing(folder):
        manifest = stored = read_manifest(folder)
        if not all(is_sound(folder / STATE, file) for file in stored.adaptation_files):
            manifest = replace(stored, adaptation=None)
        for file in manifest.state:
            if not is_sound(folder / STATE, file):
                raise IndexDamagedError(
                    f"{folder / STATE / file.name} is damaged, and all images need it; index the images again into a "
                    "new folder"
                )
        sound = tuple(file for file in manifest.current_vector_files if is_sound(folder / VECTOR_FILES, file.file))
        repaired = replace(manifest, vector_files=sound)
        for info in manifest.segments:
            if not all(is_sound(folder / SEGMENTS / info.name, file) for file in info.files):
                repaired = _without_segment(repaired, info, folder)
        if repaired != stored:
            publish(repaired, folder)
        for path in _damaged_calibrations(folder):
            path.unlink()
        return manifest.count - repaired.count


def _without_segment(manifest: Manifest, info: SegmentInfo, folder: Path) -> Manifest:
    """Drop a segment, and the removed ids in its range, since its own ids can no longer be read."""
    following = [other.first_id for other in manifest.segments if other.first_id > info.first_id]
    last = min(following, default=manifest.next_id)
    rest = manifest.without_segments({info.name})
    if manifest.removed is None:
        return rest
    removed = read_removed(folder / STATE, manifest)
    return with_removed(folder / STATE, rest, removed[(removed < info.first_id) | (removed >= last)])
