"""`vpr-dhe index`: index of a folder of images or of a recording."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_file, existing_folder, existing_indexes, known_model
from vpr_dhe.cli.shared.merging import merge_into, require_merge_alone
from vpr_dhe.cli.shared.options import (
    CODEC_OPTION,
    INDEX_TYPE_OPTION,
    BitDepthOption,
    ExtractionOptions,
    complete_model,
)
from vpr_dhe.cli.shared.progress import (
    print_stderr,
    progress_bar,
    progress_stages,
    report_building,
    report_codec,
    report_listing,
    report_skipped,
)
from vpr_dhe.cli.shared.recordings import RecordingOptions
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.runtime.choices import AUTO, Adapt, RankBy, default_adapt, default_rank_by
from vpr_dhe.runtime.view_names import MAX_VIEWS, MIN_VIEWS

if TYPE_CHECKING:
    from vpr_dhe.index.add_report import AddReport
    from vpr_dhe.index.manifest import Manifest, Settings
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.records import ImageRecord
    from vpr_dhe.runtime.image_files import ImageListing

NAME = "index"
EXAMPLES = """
vpr-dhe index photos --out my-index
vpr-dhe index photos --out my-index --positions positions.csv --prune
vpr-dhe index --video drive.mp4 --min-seconds 1 --out my-index
vpr-dhe index --merge other-index --out my-index
"""

_SHOWN_PATHS = 20


def run(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the index; created if missing.")],
    recording: RecordingOptions,
    extraction: ExtractionOptions,
    images: Annotated[
        Path | None, typer.Argument(help="Folder of images; subfolders are included.", callback=existing_folder)
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of extracted frames. [beside the index]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Model name or file; see `vpr-dhe models`. [the index's, or {DEFAULT_MODEL}]",
            callback=known_model,
            autocompletion=complete_model,
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Treat IMAGES as a part of the indexed folder.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove images from the index that are no longer in the folder.")
    ] = False,
    moved: Annotated[
        bool, typer.Option("--moved", help="The indexed photos were moved to IMAGES; nothing is extracted again.")
    ] = False,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="OTHER_INDEX",
            help="Add the images of another index with their features, without extraction; may be repeated.",
            callback=existing_indexes,
        ),
    ] = None,
    image_list: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="Text file with a path per line: index only these images of the folder.",
            callback=existing_file,
        ),
    ] = None,
    positions: Annotated[
        Path | None, typer.Option(help="CSV with positions, headings and times of images.", callback=existing_file)
    ] = None,
    codec: Annotated[str | None, CODEC_OPTION] = None,
    index_type: Annotated[str | None, INDEX_TYPE_OPTION] = None,
    rank_by: Annotated[
        RankBy | None,
        typer.Option(
            help="Order of verified candidates in queries: inliers, or evidence (with similarity). [evidence; inliers "
            "for published weights]"
        ),
    ] = None,
    adapt: Annotated[
        Adapt | None,
        typer.Option(
            help="Adapt vectors to their map once, as far as that helps (auto), or not (off). [auto; off for published "
            "weights]"
        ),
    ] = None,
    bit_depth: BitDepthOption = None,
    panorama_views: Annotated[
        int | None,
        typer.Option(
            min=MIN_VIEWS,
            max=MAX_VIEWS,
            help="Cut each equirectangular panorama into this number of views, such as 12. [the index's, or none]",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable image or folder.")] = False,
) -> None:
    """Index a folder of images or the frames of a recording; a second run extracts only new and changed images."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.index.place_index import PlaceIndex

    if merge:
        given = {
            "IMAGES": images,
            "--bag": recording.bag,
            "--video": recording.video,
            "--frames": frames,
            "--model": model,
        }
        given |= {"--add": add, "--prune": prune, "--moved": moved, "--list": image_list, "--positions": positions}
        require_merge_alone(given | {"--codec": codec, "--bit-depth": bit_depth, "--panorama-views": panorama_views})
        merge_into(out, merge, partial(_finish_merge, index_type=index_type, rank_by=rank_by, adapt=adapt))
        return
    part = add or recording.given is not None
    if part and prune:
        what = "--add" if add else "a recording"
        raise BadInputError(f"--prune needs the whole folder, and {what} gives only a part of it; use one of them")
    if image_list is not None and images is None:
        raise BadInputError(f"--list {image_list} names images of a folder, and none was given; give the folder, too")
    root = _root(images, recording, frames, out)
    index = PlaceIndex.open(out) if PlaceIndex.has_images(out) else None
    _move(index, images, out, moved=moved, part=part)
    if index is not None:  # an index of no images is falsy
        # Raises before a long extraction if its images cannot be added.
        index.relative_to_root((), root, part=part)
    begun = PlaceIndex.empty_manifest(out)
    name = model or (begun.spec.model if begun else DEFAULT_MODEL if index is None else index.spec.model)
    extractor = extraction.load(name)
    images, table = _images_and_table(recording, root, strict=strict)
    listing = _listing(images, image_list, strict=strict, prune=prune)
    records = _read_records(listing, table, positions)
    views = _panorama_views(panorama_views, index.manifest if index is not None else begun, out, new=index is None)
    records = _with_views(records, images, views)
    if index is None:
        chosen = begun.settings if begun else _default_settings(published=extractor.model_file.published)
        index = PlaceIndex.create(
            out,
            extractor.spec,
            root,
            codec=codec or chosen.codec,
            index_type=index_type or chosen.index_type,
            rank_by=rank_by or chosen.rank_by,
            adapt=adapt or chosen.adapt,
            bit_depth=bit_depth or (begun and begun.bit_depth) or AUTO,
            panorama_views=views,
        )
    else:
        index.configure(codec=codec, index_type=index_type, rank_by=rank_by, adapt=adapt, bit_depth=bit_depth)
    records = index.relative_to_root(records, images, part=part)
    codec_before = index.manifest.codec
    try:
        with progress_bar(len(records), "indexing", "image") as bar:
            report = extraction.add(index, records, extractor, name, strict=strict, progress=bar.update)
        report_codec(codec_before, index.manifest.codec)
        if not part:
            _handle_missing(index, records, listing, prune=prune)
        _finish(index)
    except KeyboardInterrupt:
        for image in index.manifest.skipped:
            report_skipped(image.path, image.reason)
        print_stderr(f"interrupted: {len(index)} images are safe in {out}; run the command again to continue")
        raise typer.Exit(1) from None
    _report_faults(images, report)
    if not len(index):
        raise BadInputError(f"none of the {len(records)} images in {images} could be read; the index is empty")
    _warn_of_duplicates(index)
    print(f"{out}: {len(index)} images ({_summary(report)}), model {index.spec.model}")


def _default_settings(*, published: bool) -> "Settings":
    from vpr_dhe.index.manifest import Settings

    return Settings(rank_by=default_rank_by(published=published), adapt=default_adapt(published=published))


def _root(images: Path | None, recording: RecordingOptions, frames: Path | None, out: Path) -> Path:
    """Return the folder that paths in the index are relative to."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.recordings.extraction import frames_folder

    recording.require_alone("a folder of images", given=images is not None, times=None)
    if images is None:
        return frames or frames_folder(out)
    if frames is not None:
        raise BadInputError(
            "--frames is the folder of frames of a recording, and a folder of images was given; leave it out"
        )
    return images


def _images_and_table(recording: RecordingOptions, root: Path, *, strict: bool) -> tuple[Path, Path | None]:
    """Return the folder of images to index, and the table of frames if it is of a recording."""
    if recording.given is None:
        return root, None
    extracted = recording.extract(root, strict=strict)
    return extracted.folder, extracted.table


def _move(index: "PlaceIndex | None", images: Path | None, out: Path, *, moved: bool, part: bool) -> None:
    """Set the folder of photos, if they were moved."""
    from vpr_dhe.errors import BadInputError

    if not moved:
        return
    if index is None or images is None or part:
        raise BadInputError(f"--moved needs an index in {out} and the whole folder that its photos were moved to")
    before = index.move_images(images)
    print_stderr(f"the images of {out} are now in {images.resolve()}, no longer in {before}")


def _listing(images: Path, image_list: Path | None, *, strict: bool, prune: bool) -> "ImageListing":
    """List the images of a folder, and say what is left out; `strict` and `prune` need a complete listing."""
    from vpr_dhe.datasets.image_lists import list_beside
    from vpr_dhe.errors import ListingError
    from vpr_dhe.images import survey_images

    if image_list is not None:
        return _listed(images, image_list, strict=strict)
    listing = survey_images(images)
    if prune and listing.unreadable:
        raise ListingError(
            f"{listing.unreadable_text}, so images that are gone cannot be told from those in it; make it readable, or "
            "leave out --prune"
        )
    if strict:
        listing.require_complete()
    report_listing(listing)
    if beside := list_beside(images):
        print_stderr(f"{beside} is not used; to index only the images that it lists, add --list {beside}")
    return listing


def _listed(images: Path, image_list: Path, *, strict: bool) -> "ImageListing":
    """List the images of a folder that a list names and that exist."""
    from vpr_dhe.datasets.image_lists import read_image_list
    from vpr_dhe.errors import ListingError
    from vpr_dhe.runtime.image_files import ImageListing

    listed = read_image_list(image_list, images)
    if strict and listed.missing:
        raise ListingError(f"{image_list} lists {listed.missing[0]}, which is not in {images}; remove it from the list")
    print_stderr(listed.text)
    gone = frozenset(listed.missing)
    return ImageListing(images, tuple(path for path in listed.paths if path not in gone))


def _read_records(listing: "ImageListing", *tables: Path | None) -> Sequence["ImageRecord"]:
    """Make the records of images, with positions and times from tables; later tables take precedence."""
    from vpr_dhe.datasets.standard import split_of
    from vpr_dhe.geography.position_table import read_positions

    records = split_of(listing.folder, listing.paths).records
    for table in filter(None, tables):
        placed = read_positions(table).apply(records, listing.folder)
        for unmatched, what in (
            (placed.rows_without_image, "rows match no image"),
            (placed.images_without_row, "images have no row"),
        ):
            if unmatched.count:
                print_stderr(f"{table}: {unmatched.count} {what}, such as {unmatched.example}")
        records = placed.records
    return records


def _panorama_views(asked: int | None, manifest: "Manifest | None", out: Path, *, new: bool) -> int:
    """Number of views of each panorama; 0 leaves panoramas whole.

    Raises:
        BadInputError: if an index holds panoramas in another number of views.
    """
    from vpr_dhe.errors import BadInputError

    known = manifest.panorama_views if manifest else 0
    if asked is None or asked == known or new:
        return known if asked is None else asked
    found = f"in {known} views" if known else "whole"
    raise BadInputError(
        f"{out} holds panoramas {found}, and --panorama-views is {asked}; leave it out, or index them into a new folder"
    )


def _with_views(records: Sequence["ImageRecord"], folder: Path, views: int) -> Sequence["ImageRecord"]:
    """Replace panoramas by their views, if any, and say in one line how many there are."""
    if not views:
        return records
    from vpr_dhe.index.panorama_views import with_views

    expanded, panoramas = with_views(records, folder, views)
    print_stderr(f"{folder}: {panoramas} of {len(records)} images are panoramas of two to one, in {views} views each")
    return expanded


def _handle_missing(
    index: "PlaceIndex", records: Sequence["ImageRecord"], listing: "ImageListing", *, prune: bool
) -> None:
    missing = [(id, index.image(id).path) for id in index.ids_missing_from(records, listing.folder).tolist()]
    held = {path for _, path in missing if listing.may_hold(_path_in(listing.folder, path, index))}
    gone = [(id, path) for id, path in missing if path not in held]
    if held:
        kept = next(path for _, path in missing if path in held)
        print_stderr(f"{len(missing) - len(gone)} indexed images cannot be read now and are kept, such as {kept}")
    if not gone:
        return
    example = gone[0][1]
    if prune:
        index.remove([id for id, _ in gone])
        print_stderr(f"removed {len(gone)} missing images, such as {example}")
    else:
        print_stderr(f"{len(gone)} indexed images are missing, such as {example}; --prune removes them from the index")


def _path_in(folder: Path, path: str, index: "PlaceIndex") -> str:
    """Path relative to a folder of an image in the index."""
    folders = index.manifest.folders
    if not folders.merged:
        return path
    return os.path.relpath(folders.locate(path), folder.resolve())


def _finish_merge(
    index: "PlaceIndex", grown: bool, *, index_type: str | None, rank_by: RankBy | None, adapt: Adapt | None
) -> None:
    """Apply the options to a merged index, adapt it to its whole map, and build FAISS files."""
    index.configure(index_type=index_type, rank_by=rank_by, adapt=adapt)
    if grown and index.manifest.adaptation:
        print_stderr(f"adapting {index.folder} to all of its {len(index)} images again")
    _finish(index, grown=grown)
    _warn_of_duplicates(index)


def _finish(index: "PlaceIndex", *, grown: bool = False) -> None:
    """Build FAISS files; adapt a new index to its map first, or say that an adapted one has outgrown what it saw.

    With `grown`, an adapted index is adapted again.
    """
    from vpr_dhe.index.map_adaptation import adapt_opened, is_outgrown
    from vpr_dhe.report.tables.adaptation import adaptation_summary

    settings, adaptation = index.manifest.settings, index.manifest.adaptation
    if len(index) and ((adaptation is None) == (settings.adapt == "auto") or (grown and adaptation is not None)):
        with progress_stages() as start_progress:
            report = adapt_opened(index, start_progress=start_progress, announce=report_building)
        if report:
            print_stderr(adaptation_summary(report))
        return
    index.build_vector_files(announce=report_building)
    if is_outgrown(index):
        print_stderr(
            f"the index was adapted to {adaptation.report.images if adaptation else 0} images, and there are "
            f"{len(index)} now; run `vpr-dhe adapt {index.folder}`"
        )


def _report_faults(images: Path, report: "AddReport") -> None:
    """Print on stderr which images and positions cannot be used."""
    from vpr_dhe.geography.exif import unused_positions_text

    for image in report.skipped:
        report_skipped(image.path, image.reason)
    if report.blank:
        _report_blank(report.blank)
    if unused := [(image.path, image.reason) for image in report.unused_positions]:
        print_stderr(f"{images}: {unused_positions_text(unused)}")


def _report_blank(paths: Sequence[str]) -> None:
    """Print one line on stderr about images without texture."""
    shown = ", ".join(paths[:_SHOWN_PATHS])
    others = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    print_stderr(f"blank, with too little texture to match: {shown}{others}")


def _warn_of_duplicates(index: "PlaceIndex") -> None:
    groups = index.duplicates()
    if groups:
        first, second = (index.image(id).path for id in groups[0][:2])
        surplus = sum(len(group) - 1 for group in groups)
        print_stderr(f"{surplus} images have the same content as another, such as {second} and {first}")


def _summary(report: "AddReport") -> str:
    parts = [f"{report.added} added"]
    optional = {"replaced": report.replaced, "with new positions": report.updated, "unchanged": report.unchanged}
    parts += [f"{count} {what}" for what, count in optional.items() if count]
    return ", ".join([*parts, f"{len(report.skipped)} skipped"])
