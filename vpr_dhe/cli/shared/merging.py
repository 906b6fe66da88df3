"""Merging of indexes by `vpr-dhe index --merge`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vpr_dhe.cli.shared.progress import print_stderr, progress_bar
from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.text import counted

if TYPE_CHECKING:
    from vpr_dhe.index.merging import MergeReport
    from vpr_dhe.index.place_index import PlaceIndex


def require_merge_alone(given: Mapping[str, object]) -> None:
    """Raise BadInputError if options were given that choose images, or how they are extracted."""
    excluded = [name for name, value in given.items() if value]
    if excluded:
        raise BadInputError(
            f"--merge takes images, features and positions from an index, and {excluded[0]} is for images to extract; "
            "give one of them"
        )


def merge_into(out: Path, others: Sequence[Path], finish: Callable[["PlaceIndex", bool], object]) -> None:
    """Merge indexes into another, which is created if it is missing, and print what was done.

    `finish` brings FAISS files and adaptation up to date; it is told whether images were added.
    """
    from vpr_dhe.index.place_index import PlaceIndex

    opened = [PlaceIndex.open(other) for other in others]
    index = PlaceIndex.open(out) if PlaceIndex.exists(out) else _created_like(opened[0], out)
    before = len(index)
    for other in opened:
        with progress_bar(len(other), f"merging {other.folder.name}", "image") as bar:
            report = index.merge(other, progress=bar.update)
        _report(index, other, report)
    finish(index, len(index) > before)
    print(f"{out}: {len(index)} images ({len(index) - before} merged), model {index.spec.model}")


def _created_like(other: "PlaceIndex", out: Path) -> "PlaceIndex":
    """Make an empty index with the model, main folder and settings of another."""
    from vpr_dhe.index.place_index import PlaceIndex

    settings = other.manifest.settings
    return PlaceIndex.create(
        out,
        other.spec,
        other.manifest.images_folder,
        codec=settings.codec,
        index_type=settings.index_type,
        rank_by=settings.rank_by,
        adapt=settings.adapt,
        panorama_views=other.manifest.panorama_views,
    )


def _report(index: "PlaceIndex", other: "PlaceIndex", report: "MergeReport") -> None:
    """Print on stderr what is to be known about a merge."""
    if report.known:
        print_stderr(f"{counted(report.known, 'image')} of {other.folder} are in {index.folder} already, and left out")
    for one in report.folders:
        print_stderr(f"paths of the images in {one.folder} begin with {one.name}/")
    if report.encoded_again:
        print_stderr(
            f"local maps of {other.folder} were encoded again, since their codec was fitted to other images; `vpr-dhe "
            f"compact {index.folder} --codec auto` fits it to all"
        )
    if report.dropped_calibrations:
        print_stderr(
            f"calibrations of {index.folder} no longer hold and were dropped; run `vpr-dhe calibrate {index.folder}`"
        )
