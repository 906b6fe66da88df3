"""Indexing of a folder of images or of the frames of a recording, as by `vpr-dhe index`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from vpr_dhe.errors import BadInputError
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.add_report import AddReport
from vpr_dhe.index.image_records import Notify, list_for_indexing, read_records, with_panorama_views, without_notes
from vpr_dhe.index.manifest import CodecInfo, Manifest, Settings
from vpr_dhe.index.map_adaptation import bring_up_to_date
from vpr_dhe.index.missing_images import MissingImages, find_missing
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.settings import SettingsChoice
from vpr_dhe.index.vector_files import Announce, without_announcement
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.recordings.extraction import ExtractedFrames
from vpr_dhe.records import StartProgress, StrPath, without_progress
from vpr_dhe.runtime.choices import (
    AUTO,
    FP32,
    MAX_PIXELS,
    Adapt,
    ExtractorPrecision,
    RankBy,
    Runtime,
    default_adapt,
    default_rank_by,
)

AddImages: TypeAlias = Callable[..., AddReport]
"""Function that brings an index up to date as `PlaceIndex.add` does: with records, an extractor and `progress=`."""


@dataclass(frozen=True)
class FramesToExtract:
    """Frames of a recording, which are extracted to files once the index is known to take them.

    Args:
        folder: folder of the frames of all recordings, which paths in the index are relative to; see
            `recordings.extraction.frames_folder`.
        extract: extracts the frames into a subfolder of that folder, as `recordings.extraction.extract_frames` does.
    """

    folder: StrPath
    extract: Callable[[Path], ExtractedFrames]


@dataclass(frozen=True)
class IndexingReport:
    """Result of `index_images`.

    Args:
        index: the index, open.
        folder: folder of the images.
        images: number of images found in it, with the views of panoramas.
        added: counts of what was done with them, and those that cannot be read. The index stays empty if none can.
        missing: indexed images that are no longer in the folder or cannot be read now; of a part, none are looked for.
        pruned: whether those that are no longer in the folder were removed from the index.
        chosen_codec: codec that was chosen now; None if it was known before.
        adaptation: report of the adaptation of a new index, or of one that did not get that far; None if nothing was
            adapted now.
    """

    index: PlaceIndex
    folder: Path
    images: int
    added: AddReport
    missing: MissingImages
    pruned: bool = False
    chosen_codec: CodecInfo | None = None
    adaptation: AdaptationReport | None = None


def index_images(
    images: StrPath | FramesToExtract,
    out: StrPath,
    *,
    model: str | None = None,
    part: bool = False,
    prune: bool = False,
    moved: bool = False,
    image_list: StrPath | None = None,
    positions: StrPath | None = None,
    codec: str | None = None,
    index_type: str | None = None,
    rank_by: RankBy | None = None,
    adapt: Adapt | None = None,
    bit_depth: str | None = None,
    panorama_views: int | None = None,
    strict: bool = False,
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: ExtractorPrecision = FP32,
    compiled: bool = False,
    batch_size: int = 8,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    add_images: AddImages | None = None,
    notify: Notify = without_notes,
    start_progress: StartProgress = without_progress,
    announce: Announce = without_announcement,
) -> IndexingReport:
    """Index a folder of images or the frames of a recording; a second call extracts only new and changed images.

    A call that is cut short, even by Ctrl-C, keeps the images extracted so far; the next one continues with its
    settings. A new index is adapted to its map at the end.

    Args:
        images: folder of images, with its subfolders; or frames of a recording, which are a part of their folder.
        out: folder of the index; made if it is missing.
        model: model name or file; by default the index's, or `lite-vlad` for a new one.
        part: `images` is a part of the indexed folder, and says nothing about the other images.
        prune: remove images from the index that are no longer in the folder.
        moved: the indexed photos were moved to `images`; nothing is extracted again.
        image_list: text file with a path per line: index only these images of the folder.
        positions: table with positions, headings and times of images; see `geography.position_table`.
        codec: codec of local maps, as for `PlaceIndex.create`. Here and below, None keeps the setting of the index; a
            new one gets `auto`.
        index_type: type of vector search, as for `PlaceIndex.create`.
        rank_by: order of verified candidates; a new index gets `evidence`, or `inliers` for published weights.
        adapt: whether the index is adapted to its map; a new index gets `auto`, or `off` for published weights.
        bit_depth: grey levels of 16-bit images, as for `PlaceIndex.create`.
        panorama_views: number of views that each equirectangular panorama is cut into; a new index leaves panoramas
            whole, as does 0.
        strict: make the first unreadable image or folder an error instead of skipping it.
        device: a torch device.
        runtime: runtime of the network, as for `load_extractor`.
        precision: precision of matrix products, as for `load_extractor`.
        compiled: whether to compile the network, as for `load_extractor`.
        batch_size: images per call of the extractor.
        workers: processes that decode images, as for `PlaceIndex.add`.
        max_pixels: largest number of pixels of an image that is decoded; larger ones count as unreadable.
        add_images: function to call instead of `PlaceIndex.add`, such as `partial(add_with_ray, workers=...)` for a
            cluster; it is called without `strict`, `batch_size`, `workers` and `max_pixels`.
        notify: called with each note on the images, such as rows of a table without image, or images that are missing.
        start_progress: called with the name and length of each slow stage.
        announce: called with the type and the number of vectors before each FAISS file is built.

    Raises:
        BadInputError: if the folder is missing, holds no images or is not that of the index, a table fits no image, or
            an option is wrong or does not fit the index.
        ListingError: with `strict` or `prune`, if a part of the folder cannot be listed.
        DatasetError: if the list of images cannot be read.
        ModelError: if the model cannot be loaded.
        ImageError: with `strict`, at the first image that cannot be read.
        IndexBusyError: if another process is writing to the index.
        IndexFormatError, IndexDamagedError: if the index cannot be read, or was made with another model.
    """
    out = Path(out)
    recorded = images if isinstance(images, FramesToExtract) else None
    root = Path(images.folder if isinstance(images, FramesToExtract) else images)
    part = part or recorded is not None
    _require_whole_folder(recorded, part=part, prune=prune, image_list=image_list)
    index = _opened(out, root, part=part, moved=moved, notify=notify)
    known = PlaceIndex.empty_manifest(out) if index is None else index.manifest
    name = model or (known.spec.model if known else DEFAULT_MODEL)
    extractor = load_extractor(name, device, precision=precision, compiled=compiled, runtime=runtime)
    views = _panorama_views(panorama_views, known, out, index)
    settings = _new_settings(extractor, known, SettingsChoice(codec, index_type, rank_by, adapt))
    bit_depth_of_new = bit_depth or (known and known.bit_depth) or AUTO
    if index is None:  # before hours of extraction
        PlaceIndex.require_creatable(out, extractor.spec, settings, bit_depth_of_new)
    else:
        index.configure(codec=codec, index_type=index_type, rank_by=rank_by, adapt=adapt, bit_depth=bit_depth)
    frames = recorded.extract(root) if recorded else None
    folder, tables = (frames.folder, [frames.table]) if frames else (root, [])
    tables += [] if positions is None else [Path(positions)]
    image_list = None if image_list is None else Path(image_list)
    listing = list_for_indexing(folder, image_list, strict=strict, prune=prune, notify=notify)
    records = read_records(listing, tables, notify)
    records = with_panorama_views(records, folder, views, notify)
    if index is None:
        index = _created(out, extractor, root, settings, bit_depth_of_new, views)
    records = index.relative_to_root(records, folder, part=part)
    codec_before = index.manifest.codec
    add = add_images or partial(
        PlaceIndex.add, batch_size=batch_size, strict=strict, workers=workers, max_pixels=max_pixels
    )
    added = add(index, records, extractor, progress=start_progress("indexing", len(records)))
    missing = MissingImages() if part else find_missing(index, records, listing)
    if prune and missing.gone:
        index.remove(list(missing.gone))
    for note in missing.notes(pruned=prune):
        notify(note)
    chosen = None if index.manifest.codec == codec_before else index.manifest.codec
    adaptation = bring_up_to_date(index, start_progress=start_progress, announce=announce)
    return IndexingReport(index, folder, len(records), added, missing, prune, chosen, adaptation)


def _require_whole_folder(
    recorded: FramesToExtract | None, *, part: bool, prune: bool, image_list: StrPath | None
) -> None:
    """Raise BadInputError if options ask for a whole folder of images, and something else was given."""
    if part and prune:
        what = "--add" if recorded is None else "a recording"
        raise BadInputError(f"--prune needs the whole folder, and {what} gives only a part of it; use one of them")
    if image_list is not None and recorded is not None:
        raise BadInputError(f"--list {image_list} names images of a folder, and none was given; give the folder, too")


def _opened(out: Path, root: Path, *, part: bool, moved: bool, notify: Notify) -> PlaceIndex | None:
    """Open the index and set the folder of its images, if they were moved; None if it holds no images yet.

    Raises:
        BadInputError: if images of the folder cannot be added; found out here, before a long extraction.
    """
    index = PlaceIndex.open(out) if PlaceIndex.has_images(out) else None
    if moved:
        if index is None or part:
            raise BadInputError(f"--moved needs an index in {out} and the whole folder that its photos were moved to")
        before = index.move_images(root)
        notify(f"the images of {out} are now in {root.resolve()}, no longer in {before}")
    if index is not None:  # an index of no images is falsy
        index.relative_to_root((), root, part=part)
    return index


def _panorama_views(asked: int | None, known: Manifest | None, out: Path, index: PlaceIndex | None) -> int:
    """Number of views of each panorama; 0 leaves panoramas whole.

    Raises:
        BadInputError: if an index holds panoramas in another number of views.
    """
    views = known.panorama_views if known else 0
    if asked is None or asked == views or index is None:
        return views if asked is None else asked
    found = f"in {views} views" if views else "whole"
    raise BadInputError(
        f"{out} holds panoramas {found}, and --panorama-views is {asked}; leave it out, or index them into a new folder"
    )


def _new_settings(extractor: Extractor, known: Manifest | None, choice: SettingsChoice) -> Settings:
    """Settings of a new index: chosen ones, and otherwise those of `known`, a first call that was cut short."""
    published = extractor.model_file.published
    default = Settings(rank_by=default_rank_by(published=published), adapt=default_adapt(published=published))
    return choice.over(known.settings if known else default)


def _created(out: Path, extractor: Extractor, root: Path, settings: Settings, bit_depth: str, views: int) -> PlaceIndex:
    return PlaceIndex.create(
        out,
        extractor.spec,
        root,
        codec=settings.codec,
        index_type=settings.index_type,
        rank_by=settings.rank_by,
        adapt=settings.adapt,
        bit_depth=bit_depth,
        panorama_views=views,
    )
