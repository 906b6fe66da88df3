"""`vpr-dhe align`: homography between two images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_file, known_aligner, writable_file
from vpr_dhe.cli.shared.help import OUTPUT
from vpr_dhe.cli.shared.options import FormatOption, OutOption, PairModelOptions, WeightsOption, complete_aligner
from vpr_dhe.cli.shared.progress import DocumentFormat, chosen_format, print_result, progress_stages
from vpr_dhe.verification.names import DEFAULT_VERIFIER

if TYPE_CHECKING:
    from vpr_dhe.records import Verification
    from vpr_dhe.verification.working_copy import Picture

NAME = "align"
EXAMPLES = """
vpr-dhe align a.jpg b.jpg --overlay both.png
vpr-dhe align a.jpg b.jpg --out homography.json
"""


def run(
    image_a: Annotated[Path, typer.Argument(help="Image A.", callback=existing_file)],
    image_b: Annotated[Path, typer.Argument(help="Image B.", callback=existing_file)],
    model: PairModelOptions,
    method: Annotated[
        str,
        typer.Option(
            help="Alignment method, see `vpr-dhe verifiers`; auto takes the best of several.",
            callback=known_aligner,
            autocompletion=complete_aligner,
        ),
    ] = DEFAULT_VERIFIER,
    weights: WeightsOption = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Time limit of methods that learn on the pair, in seconds.")
    ] = None,
    format: FormatOption = None,
    out: OutOption = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Write a picture of both images overlaid, at about 2 MP at most.",
            callback=writable_file,
        ),
    ] = None,
) -> None:
    """Find the homography from A to B in pixels of the original images; exit with 1 if there is none."""
    from vpr_dhe.errors import AlignmentError
    from vpr_dhe.report.tables.alignment import homography_document, homography_table
    from vpr_dhe.runtime.stopwatch import Stopwatch
    from vpr_dhe.verification.alignment import build_aligner, load_resources, open_picture

    format = chosen_format(format, out, DocumentFormat.table)
    a, b = open_picture(image_a), open_picture(image_b)
    with progress_stages("step") as start:
        resources = load_resources(
            model.model, weights or (), **model.loading(), start_progress=start, max_seconds=max_seconds
        )
        align = build_aligner(method, resources)
        clock = Stopwatch()
        found = align(a, b)
        elapsed_ms = clock.lap_ms()
    if format is DocumentFormat.json:
        print_result(json.dumps(homography_document(method, found, elapsed_ms)), out)
    if found.homography is None:
        raise AlignmentError(f"no homography found from {image_a} to {image_b}; do they show the same plane?")
    if format is DocumentFormat.table:
        print_result(homography_table(method, found, elapsed_ms, image_a, image_b), out)
    if overlay:
        _write_overlay(a, b, found, overlay)


def _write_overlay(a: "Picture", b: "Picture", found: "Verification", overlay: Path) -> None:
    """Draw an alignment at the size that the images were aligned at."""
    from vpr_dhe.images.loading import image_size
    from vpr_dhe.report.pictures.drawing import write_picture
    from vpr_dhe.report.pictures.panels import draw_alignment
    from vpr_dhe.verification.rescaling import PairSizes, rescaled

    drawn = PairSizes(image_size(a.working), image_size(b.working))
    found = rescaled(found, PairSizes(a.size, b.size), drawn)
    write_picture(draw_alignment(a.working, b.working, found), overlay)
