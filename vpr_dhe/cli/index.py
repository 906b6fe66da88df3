"""`vpr-dhe index`: index of a folder of images or of a recording."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vpr_dhe.cli.shared.callbacks import existing_file, existing_folder, existing_indexes, known_model
from vpr_dhe.cli.shared.options import (
    CODEC_OPTION,
    INDEX_TYPE_OPTION,
    BitDepthOption,
    ExtractionOptions,
    complete_model,
)
from vpr_dhe.cli.shared.progress import print_stderr, progress_stages, report_building, report_codec, report_skipped
from vpr_dhe.cli.shared.recordings import RecordingOptions
from vpr_dhe.errors import BadInputError
from vpr_dhe.images.view_names import MAX_VIEWS, MIN_VIEWS
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.runtime.choices import Adapt, RankBy

if TYPE_CHECKING:
    from vpr_dhe.index.indexing import FramesToExtract, IndexingReport

NAME = "index"
EXAMPLES = """
vpr-dhe index photos --out my-index
vpr-dhe index photos --out my-index --positions positions.csv --prune
vpr-dhe index --video drive.mp4 --min-seconds 1 --out my-index
vpr-dhe index --merge other-index --out my-index
"""


@dataclass(frozen=True)
class SourceOptions:
    """Images to index."""

    images: Annotated[
        Path | None, typer.Argument(help="Folder of images; subfolders are included.", callback=existing_folder)
    ] = None
    frames: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of extracted frames. [beside the index]")
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Model name or file; see `vpr-dhe models`. [the index's, or {DEFAULT_MODEL}]",
            callback=known_model,
            autocompletion=complete_model,
        ),
    ] = None
    add: Annotated[bool, typer.Option("--add", help="Treat IMAGES as a part of the indexed folder.")] = False
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove images from the index that are no longer in the folder.")
    ] = False
    moved: Annotated[
        bool, typer.Option("--moved", help="The indexed photos were moved to IMAGES; nothing is extracted again.")
    ] = False
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="OTHER_INDEX",
            help="Add the images of another index with their features, without extraction; may be repeated.",
            callback=existing_indexes,
        ),
    ] = None
    image_list: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="Text file with a path per line: index only these images of the folder.",
            callback=existing_file,
        ),
    ] = None
    positions: Annotated[
        Path | None, typer.Option(help="CSV with positions, headings and times of images.", callback=existing_file)
    ] = None

    def chosen(self, recording: RecordingOptions, out: Path, *, strict: bool) -> "Path | FramesToExtract":
        """Return the folder of images, or the frames of the recording.

        Raises:
            BadInputError: unless exactly one of them is given.
        """
        from vpr_dhe.index.indexing import FramesToExtract
        from vpr_dhe.recordings.extraction import frames_folder

        recording.require_alone("a folder of images", given=self.images is not None, times=None)
        if self.images is None:
            return FramesToExtract(
                self.frames or frames_folder(out), lambda folder: recording.extract(folder, strict=strict)
            )
        if self.frames is not None:
            raise BadInputError(
                "--frames is the folder of frames of a recording, and a folder of images was given; leave it out"
            )
        return self.images


@dataclass(frozen=True)
class SettingsOptions:
    """Settings of the index."""

    codec: Annotated[str | None, CODEC_OPTION] = None
    index_type: Annotated[str | None, INDEX_TYPE_OPTION] = None
    rank_by: Annotated[
        RankBy | None,
        typer.Option(
            help="Order of verified candidates in queries: inliers, or evidence (with similarity). [evidence; inliers "
            "for published weights]"
        ),
    ] = None
    adapt: Annotated[
        Adapt | None,
        typer.Option(
            help="Adapt vectors to their map once, as far as that helps (auto), or not (off). [auto; off for published "
            "weights]"
        ),
    ] = None
    bit_depth: BitDepthOption = None
    panorama_views: Annotated[
        int | None,
        typer.Option(
            min=MIN_VIEWS,
            max=MAX_VIEWS,
            help="Cut each equirectangular panorama into this number of views, such as 12. [the index's, or none]",
        ),
    ] = None


def run(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the index; created if missing.")],
    source: SourceOptions,
    recording: RecordingOptions,
    settings: SettingsOptions,
    extraction: ExtractionOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable image or folder.")] = False,
) -> None:
    """Index a folder of images or the frames of a recording; a second run extracts only new and changed images."""
    from vpr_dhe.index.indexing import index_images

    if source.merge:
        _require_merge_alone(source, recording, settings, extraction, strict=strict)
        _merge(source.merge, out, settings)
        return
    has_begun = False

    def start(stage: str, count: int) -> Callable[[int], object]:
        nonlocal has_begun
        has_begun = True
        return start_progress(stage, count)

    try:
        with progress_stages() as start_progress:
            report = index_images(
                source.chosen(recording, out, strict=strict),
                out,
                model=source.model,
                part=source.add,
                prune=source.prune,
                moved=source.moved,
                image_list=source.image_list,
                positions=source.positions,
                **vars(settings),
                strict=strict,
                **extraction.keywords(strict=strict),
                notify=print_stderr,
                start_progress=start,
                announce=report_building,
            )
    except KeyboardInterrupt:
        if not has_begun:  # nothing was extracted yet
            raise
        _end_interrupted(out)
    _print(report, out)


def _end_interrupted(out: Path) -> NoReturn:
    """Say what an interrupted run has kept, and exit."""
    from vpr_dhe.index.place_index import PlaceIndex

    index = PlaceIndex.open(out)
    for image in index.manifest.skipped:
        report_skipped(image.path, image.reason)
    print_stderr(f"interrupted: {len(index)} images are safe in {out}; run the command again to continue")
    raise typer.Exit(1)


def _print(report: "IndexingReport", out: Path) -> None:
    """Print what was done, and on stderr what could not be used."""
    from vpr_dhe.report.tables import indexing as tables

    index = report.index
    report_codec(None, report.chosen_codec)
    for line in tables.adaptation_notes(index, report.adaptation):
        print_stderr(line)
    for image in report.added.skipped:
        report_skipped(image.path, image.reason)
    for line in tables.fault_lines(report):
        print_stderr(line)
    if not len(index):
        raise BadInputError(f"none of the {report.images} images in {report.folder} could be read; the index is empty")
    for line in tables.duplicate_lines(index):
        print_stderr(line)
    print(f"{out}: {len(index)} images ({tables.added_summary(report.added)}), model {index.spec.model}")


def _merge(others: list[Path], out: Path, settings: SettingsOptions) -> None:
    """Merge indexes, and print what was done."""
    from vpr_dhe.index.merged_indexes import merge_indexes
    from vpr_dhe.report.tables.indexing import adaptation_notes, duplicate_lines

    with progress_stages() as start_progress:
        merged = merge_indexes(
            others,
            out,
            index_type=settings.index_type,
            rank_by=settings.rank_by,
            adapt=settings.adapt,
            notify=print_stderr,
            start_progress=start_progress,
            announce=report_building,
        )
    index = merged.index
    for line in (*adaptation_notes(index, merged.adaptation), *duplicate_lines(index)):
        print_stderr(line)
    print(f"{out}: {len(index)} images ({merged.added} merged), model {index.spec.model}")


def _require_merge_alone(
    source: SourceOptions,
    recording: RecordingOptions,
    settings: SettingsOptions,
    extraction: ExtractionOptions,
    *,
    strict: bool,
) -> None:
    """Raise BadInputError if options were given that choose images, or how they are extracted."""
    given = {
        "IMAGES": source.images,
        "--bag": recording.bag,
        "--video": recording.video,
        "--frames": source.frames,
        "--model": source.model,
        "--add": source.add,
        "--prune": source.prune,
        "--moved": source.moved,
        "--list": source.image_list,
        "--positions": source.positions,
        "--codec": settings.codec,
        "--bit-depth": settings.bit_depth,
        "--panorama-views": settings.panorama_views,
        "--strict": strict,
        **_changed(extraction),
    }
    excluded = [name for name, value in given.items() if value]
    if excluded:
        raise BadInputError(
            f"--merge takes images, features and positions from an index, and {excluded[0]} is for images to extract; "
            "give one of them"
        )


def _changed(options: ExtractionOptions) -> dict[str, bool]:
    """Whether each option differs from its default, by its name on the command line."""
    return {f"--{one.name.replace('_', '-')}": getattr(options, one.name) != one.default for one in fields(options)}
