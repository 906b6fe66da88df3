"""Recognition of a folder that the photos of an index were moved to."""

from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.images.view_names import file_of
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.rows import FileStamp
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.sampling import evenly_spread

SAMPLE = 256
"""Number of images of a folder that are compared."""

MIN_UNCHANGED_SHARE = 0.5
"""Share of these that must be unchanged."""


@dataclass(frozen=True)
class MovedFolder:
    """A folder of an index compared with another place.

    Args:
        folder: the folder as the index knows it.
        images: number of its images that were compared.
        unchanged: number of these that the other place holds unchanged.
        example: path, relative to the folder, of one that was compared.
    """

    folder: str
    images: int
    unchanged: int
    example: str

    @property
    def share(self) -> float:
        """Share of unchanged images; 0 without any."""
        return self.unchanged / self.images if self.images else 0.0

    def require_unchanged(self, place: StrPath) -> None:
        """Check that the other place holds enough of the images unchanged.

        Raises:
            BadInputError: if fewer than half are unchanged.
        """
        if self.images and self.share < MIN_UNCHANGED_SHARE:
            raise BadInputError(
                f"{place} holds {self.unchanged} of {self.images} indexed images unchanged ({self.example} is missing "
                "or changed); give the folder that their paths are relative to, or another folder for a new index"
            )


def moved_folder(snapshot: Snapshot, moved: Path) -> MovedFolder:
    """Find the folder of an index whose images a place holds, as far as there is one.

    Folders that no longer exist come first, since photos may also have been copied.
    """
    folders = snapshot.manifest.folders
    found = [_compared(snapshot, folders, folder, moved) for folder in folders.all]
    gone = folders.missing
    return max(found, key=lambda one: (one.share >= MIN_UNCHANGED_SHARE, one.images > 0, one.folder in gone, one.share))


def _compared(snapshot: Snapshot, folders: ImageFolders, folder: str, moved: Path) -> MovedFolder:
    ids = snapshot.ids
    if folders.merged:
        ids = ids[[folders.owner(snapshot.image(int(id)).path) == folder for id in ids]]
    ids = ids[evenly_spread(len(ids), SAMPLE)].tolist()
    paths = [folders.locate(snapshot.image(id).path).relative_to(folder) for id in ids]
    unchanged = sum(_is_unchanged(moved / path, snapshot.stamp(id)) for id, path in zip(ids, paths, strict=True))
    return MovedFolder(folder, len(ids), unchanged, paths[0].as_posix() if paths else "")


def _is_unchanged(path: Path, stamp: FileStamp) -> bool:
    return file_of(path).is_file() and stamp.matches(path)
