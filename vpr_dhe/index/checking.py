"""Is everything that an index stores still what was written? And what to do where it is not."""

from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.errors import IndexDamagedError
from vpr_dhe.index.documents import is_sound_document
from vpr_dhe.index.files import is_sound
from vpr_dhe.index.manifest import Manifest, publish, read_manifest, writing
from vpr_dhe.index.segments import SegmentInfo
from vpr_dhe.index.snapshot import CALIBRATIONS, SEGMENTS, STATE, VECTOR_FILES
from vpr_dhe.index.tombstones import read_removed, with_removed


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; `damaged` names files relative to the index."""

    images: int
    skipped: int
    segments: int
    damaged: tuple[str, ...]
    model: str


def check(folder: Path) -> CheckReport:
    """Compare every stored file of an index with its size and checksum, without loading it.

    Raises:
        IndexFormatError, IndexDamagedError: if the manifest itself cannot be used.
    """
    while True:
        manifest = read_manifest(folder)
        damaged = _damaged_files(folder, manifest)
        # What another process has replaced meanwhile is no damage.
        if not damaged or read_manifest(folder) == manifest:
            break
    return CheckReport(
        manifest.count, len(manifest.skipped), len(manifest.segments), tuple(damaged), manifest.spec.model
    )


def _damaged_files(folder: Path, manifest: Manifest) -> list[str]:
    """Names, relative to the index, of files that do not agree with their checksums."""
    damaged = [
        f"{SEGMENTS}/{fact.name}/{file.name}"
        for fact in manifest.segments
        for file in fact.files
        if not is_sound(folder / SEGMENTS / fact.name, file)
    ]
    vector_files = [covering.file for covering in manifest.vector_files]
    damaged += [f"{VECTOR_FILES}/{file.name}" for file in vector_files if not is_sound(folder / VECTOR_FILES, file)]
    damaged += [f"{STATE}/{file.name}" for file in manifest.state if not is_sound(folder / STATE, file)]
    return damaged + [f"{CALIBRATIONS}/{path.name}" for path in _damaged_calibrations(folder)]


def _damaged_calibrations(folder: Path) -> list[Path]:
    """Calibrations are no part of the manifest: each carries its checksum in itself."""
    return [path for path in sorted((folder / CALIBRATIONS).glob("*.json")) if not is_sound_document(path)]


def repair(folder: Path) -> int:
    """Drop damaged segments, FAISS files and calibrations; returns how many images went with them.

    Indexing the images folder again extracts exactly these, and builds what is needed for the search.

    Raises:
        IndexBusyError: if another process is writing.
        IndexDamagedError: if what is damaged belongs to every image, so that nothing can be saved.
    """
    with writing(folder):
        manifest = read_manifest(folder)
        for file in manifest.state:
            if not is_sound(folder / STATE, file):
                raise IndexDamagedError(
                    f"{folder / STATE / file.name} is damaged, and all images need it; index the images again into a "
                    "new folder"
                )
        sound = tuple(file for file in manifest.vector_files if is_sound(folder / VECTOR_FILES, file.file))
        mended = replace(manifest, vector_files=sound)
        for fact in manifest.segments:
            if not all(is_sound(folder / SEGMENTS / fact.name, file) for file in fact.files):
                mended = _without_segment(mended, fact, folder)
        if mended != manifest:
            publish(mended, folder)
        for path in _damaged_calibrations(folder):
            path.unlink()
        return manifest.count - mended.count


def _without_segment(manifest: Manifest, fact: SegmentInfo, folder: Path) -> Manifest:
    """Drop a segment and forget which of its images were removed: it can no longer be read which ids it holds."""
    following = [other.first_id for other in manifest.segments if other.first_id > fact.first_id]
    last = min(following, default=manifest.next_id)
    rest = manifest.without_segments({fact.name})
    if manifest.removed is None:
        return rest
    removed = read_removed(folder / STATE, manifest)
    return with_removed(folder / STATE, rest, removed[(removed < fact.first_id) | (removed >= last)])
