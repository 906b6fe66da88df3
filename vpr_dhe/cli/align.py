"""`vpr-dhe align`: homography between two images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import DocumentFormat, progress_stages, require_writable
from vpr_dhe.cli.options import PairModelOptions, WeightsOption
from vpr_dhe.verification.names import DEFAULT_VERIFIER

NAME = "align"


def run(
    image_a: Annotated[Path, typer.Argument(help="Image A.")],
    image_b: Annotated[Path, typer.Argument(help="Image B.")],
    model: PairModelOptions,
    method: Annotated[str, typer.Option(help="Alignment method; see `vpr-dhe verifiers`.")] = DEFAULT_VERIFIER,
    weights: WeightsOption = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Time limit of methods that learn on the pair, in seconds.")
    ] = None,
    format: Annotated[DocumentFormat, typer.Option(help="Output format.")] = DocumentFormat.table,
    overlay: Annotated[Path | None, typer.Option(help="Write a picture of both images overlaid.")] = None,
) -> None:
    """Find the homography from A to B in pixels of the original images; exit with 1 if there is none."""
    from vpr_dhe.errors import AlignmentError
    from vpr_dhe.images import decode_named
    from vpr_dhe.report.pictures.drawing import write_picture
    from vpr_dhe.report.pictures.panels import draw_alignment
    from vpr_dhe.report.tables.answers import evidence_document
    from vpr_dhe.runtime.stopwatch import Stopwatch
    from vpr_dhe.verification.alignment import build_aligner

    require_writable(overlay)
    a, b = decode_named(image_a), decode_named(image_b)
    with progress_stages("step") as start:
        align = build_aligner(
            method, model.model, weights or (), **model.loading(), start_progress=start, max_seconds=max_seconds
        )
        clock = Stopwatch()
        found = align(a, b)
        elapsed_ms = clock.lap_ms()
    matrix = None if found.homography is None else found.homography.tolist()
    if format is DocumentFormat.json:
        document = {"method": method, "homography": matrix, "inliers": found.inliers, "score": found.score}
        print(json.dumps(document | evidence_document(found) | {"timing_ms": elapsed_ms}))
    if found.homography is None:
        raise AlignmentError(f"no homography found from {image_a} to {image_b}; do they show the same plane?")
    if format is DocumentFormat.table:
        print(f"{method}: {found.inliers} inliers, {elapsed_ms:.0f} ms; {image_a} to {image_b}")
        print("\n".join("  ".join(f"{value:14.8g}" for value in row) for row in found.homography))
    if overlay:
        write_picture(draw_alignment(a, b, found), overlay)
