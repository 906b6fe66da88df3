"""Merging of whole indexes into one, as by `vpr-dhe index --merge`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.image_records import Notify, without_notes
from vpr_dhe.index.map_adaptation import bring_up_to_date
from vpr_dhe.index.merging import MergeReport, require_mergeable
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.vector_files import Announce, without_announcement
from vpr_dhe.records import StartProgress, StrPath, without_progress
from vpr_dhe.runtime.choices import Adapt, RankBy
from vpr_dhe.runtime.text import counted


@dataclass(frozen=True)
class MergedIndexes:
    """Result of `merge_indexes`.

    Args:
        index: the index that the others were merged into, open.
        merges: report of each merge, in their order.
        adaptation: report of the adaptation to the map of all; None if nothing was adapted now.
    """

    index: PlaceIndex
    merges: tuple[MergeReport, ...]
    adaptation: AdaptationReport | None = None

    @property
    def added(self) -> int:
        """Number of images that were added."""
        return sum(merge.added for merge in self.merges)


def merge_indexes(
    others: Iterable[StrPath],
    out: StrPath,
    *,
    index_type: str | None = None,
    rank_by: RankBy | None = None,
    adapt: Adapt | None = None,
    notify: Notify = without_notes,
    start_progress: StartProgress = without_progress,
    announce: Announce = without_announcement,
) -> MergedIndexes:
    """Add the images of other indexes to an index, without extraction; see `PlaceIndex.merge`.

    Once all are merged, an adapted index is adapted again, to the map of all.

    Args:
        others: folders of the indexes to merge; they are only read.
        out: folder of the index; if it is missing, it is made with the settings of the first of the others.
        index_type: type of vector search, as for `PlaceIndex.create`; None keeps that of the index.
        rank_by: order of verified candidates; None keeps that of the index.
        adapt: whether the index is adapted to its map; None keeps the setting of the index.
        notify: called with each note on a merge, such as the names of new folders.
        start_progress: called with the name and length of each slow stage.
        announce: called with the type and the number of vectors before each FAISS file is built.

    Raises:
        BadInputError: if no index is given, one holds no images or is to be merged into itself, or model, codec or grey
            levels of two differ.
        IndexBusyError: if another process is writing to the index.
        IndexFormatError, IndexDamagedError: if an index cannot be read.
    """
    opened = [PlaceIndex.open(other) for other in others]
    if not opened:
        raise BadInputError("no index to merge was given; give at least one")
    index = PlaceIndex.open(out) if PlaceIndex.exists(out) else _created_like(opened[0], Path(out))
    for other in opened:
        require_mergeable(index.manifest, other.manifest, index.folder, other.folder)
    index.configure(index_type=index_type, rank_by=rank_by, adapt=adapt)
    merges: list[MergeReport] = []
    for other in opened:
        merge = index.merge(other, progress=start_progress(f"merging {other.folder.name}", len(other)))
        for note in _notes(index, other, merge):
            notify(note)
        merges.append(merge)
    adapted = index.manifest.adaptation
    # Also by a merge that was cut short before its adaptation.
    has_grown = adapted is not None and adapted.report.images != len(index)
    if has_grown:
        notify(f"adapting {index.folder} to all of its {len(index)} images again")
    adaptation = bring_up_to_date(index, again=has_grown, start_progress=start_progress, announce=announce)
    return MergedIndexes(index, tuple(merges), adaptation)


def _created_like(other: PlaceIndex, out: Path) -> PlaceIndex:
    """Make an empty index with the model, main folder and settings of another."""
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


def _notes(index: PlaceIndex, other: PlaceIndex, merge: MergeReport) -> Iterator[str]:
    """Lines about what was left out, named, encoded again or dropped by a merge."""
    if merge.known:
        yield f"{counted(merge.known, 'image')} of {other.folder} are in {index.folder} already, and left out"
    for one in merge.folders:
        yield f"paths of the images in {one.folder} begin with {one.name}/"
    if merge.encoded_again:
        yield f"local maps of {other.folder} were encoded again, since their codec was fitted to other images"
    if merge.dropped_calibrations:
        yield f"calibrations of {index.folder} no longer hold and were dropped; run `vpr-dhe calibrate {index.folder}`"
