"""`vpr-dhe index`: make an index of a folder of images, or bring it up to date."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import progress_bar, say_building, say_skipped
from vpr_dhe.cli.options import ExtractionOptions
from vpr_dhe.cli.recordings import RecordingOptions
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from vpr_dhe.index.place_index import AddReport, PlaceIndex
    from vpr_dhe.records import ImageRecord

NAME = "index"


def run(
    out: Annotated[Path, typer.Option(help="Folder of the index; made if it does not exist.")],
    recording: RecordingOptions,
    extraction: ExtractionOptions,
    images: Annotated[Path | None, typer.Argument(help="Folder of images; sub-folders are included.")] = None,
    frames: Annotated[Path | None, typer.Option(help="Where frames are kept; beside the index.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Model name or file, see `vpr-dhe models`; the index's, or {DEFAULT_MODEL}.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="IMAGES may be a part of the folder that is indexed.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove images that are no longer in the folder.")] = False,
    positions: Annotated[Path | None, typer.Option(help="CSV with positions, headings, times of images.")] = None,
    codec: Annotated[
        str | None, typer.Option(help="How local maps are stored: auto, float16, int8, binary, ...")
    ] = None,
    index_type: Annotated[
        str | None, typer.Option(help="How vectors are searched: auto, flat, hnsw, ivf-flat, ivf-sq8, rabitq.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")] = False,
) -> None:
    """Index the images of a map, or the frames of a recording; run again, it extracts what is new or has changed."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.index.place_index import PlaceIndex

    part = add or recording.given is not None
    if part and prune:
        what = "--add" if add else "a recording"
        raise BadInputError(f"--prune looks for images of the whole folder, and {what} gives a part; use one of them")
    root = _root(images, recording, frames, out)
    index = PlaceIndex.open(out) if PlaceIndex.holds_index(out) else None
    if index:
        # Before a long extraction: can what comes of it be added at all?
        index.relative_to_root((), root, part=part)
    name = model or (index.spec.model if index else DEFAULT_MODEL)
    extractor = extraction.load(name)
    images, table = _to_index(recording, root, strict=strict)
    records = _read_records(images, table, positions)
    if index is None:
        index = PlaceIndex.create(out, extractor.spec, root, codec=codec or AUTO, index_type=index_type or AUTO)
    records = index.relative_to_root(records, images, part=part)
    index.configure(codec=codec, index_type=index_type)
    try:
        with progress_bar(len(records), "indexing", "image") as bar:
            report = extraction.add(index, records, extractor, name, strict=strict, progress=bar.update)
        if not part:
            _deal_with_vanished(index, records, prune=prune)
        index.build_vector_files(announce=say_building)
    except KeyboardInterrupt:
        for image in index.manifest.skipped:
            say_skipped(image.path, image.reason)
        print(f"interrupted: {len(index)} images are safe in {out}; run the command again to go on", file=sys.stderr)
        raise typer.Exit(1) from None
    for image in report.skipped:
        say_skipped(image.path, image.reason)
    if not len(index):
        raise BadInputError(f"none of the {len(records)} images in {images} could be read; the index is empty")
    _say_duplicates(index)
    print(f"{out}: {len(index)} images ({_summary(report)}), model {index.spec.model}")


def _root(images: Path | None, recording: RecordingOptions, frames: Path | None, out: Path) -> Path:
    """What paths in the index are to be relative to."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.recordings.extraction import frames_folder

    recording.require_alone("a folder of images", given=images is not None, times=None)
    if images is None:
        return frames or frames_folder(out)
    if frames is not None:
        raise BadInputError("--frames is for what is taken out of a recording, and a folder of images is given")
    return images


def _to_index(recording: RecordingOptions, root: Path, *, strict: bool) -> tuple[Path, Path | None]:
    """The folder of images to look at, and the table that comes with those of a recording."""
    if recording.given is None:
        return root, None
    extracted = recording.extract(root, strict=strict)
    return extracted.folder, extracted.table


def _read_records(images: Path, *tables: Path | None) -> Sequence["ImageRecord"]:
    """The images of a folder with what tables say of them, of which the last wins."""
    from vpr_dhe.datasets.standard import read_split
    from vpr_dhe.geography.position_table import read_positions

    records = read_split(images).records
    for table in filter(None, tables):
        placed = read_positions(table).apply(records)
        for unmatched, what in (
            (placed.rows_without_image, "rows are about no image"),
            (placed.images_without_row, "images have no row"),
        ):
            if unmatched.count:
                print(f"{table}: {unmatched.count} {what}, such as {unmatched.example}", file=sys.stderr)
        records = placed.records
    return records


def _deal_with_vanished(index: "PlaceIndex", records: Sequence["ImageRecord"], *, prune: bool) -> None:
    vanished = index.not_among(records)
    if not len(vanished):
        return
    example = index.image(int(vanished[0])).path
    if prune:
        index.remove(vanished.tolist())
        print(f"removed {len(vanished)} images that are gone, such as {example}", file=sys.stderr)
    else:
        print(
            f"{len(vanished)} indexed images are gone, such as {example}; --prune removes them from the index",
            file=sys.stderr,
        )


def _say_duplicates(index: "PlaceIndex") -> None:
    groups = index.duplicates()
    if groups:
        first, second = (index.image(id).path for id in groups[0][:2])
        surplus = sum(len(group) - 1 for group in groups)
        print(f"{surplus} images have the same content as another, such as {second} and {first}", file=sys.stderr)


def _summary(report: "AddReport") -> str:
    parts = [f"{report.added} added"]
    optional = {"replaced": report.replaced, "with new positions": report.updated, "unchanged": report.unchanged}
    parts += [f"{count} {what}" for what, count in optional.items() if count]
    return ", ".join([*parts, f"{len(report.skipped)} skipped"])
