"""`vpr-dhe align`: the homography between two images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import Device, DocumentFormat, WeightsOption, pick_device, require_writable, stages

NAME = "align"


def run(
    image_a: Annotated[Path, typer.Argument(help="Image whose pixels are mapped.")],
    image_b: Annotated[Path, typer.Argument(help="Image they are mapped to.")],
    method: Annotated[str, typer.Option(help="Estimator; see `vpr-dhe verifiers`.")] = "magsac",
    model: Annotated[str | None, typer.Option(help="Model file, for methods that need a head.")] = None,
    weights: WeightsOption = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Time that a method which learns on the pair may take.")
    ] = None,
    format: Annotated[DocumentFormat, typer.Option(help="Output format.")] = DocumentFormat.table,
    overlay: Annotated[Path | None, typer.Option(help="Draw the images one over the other into this picture.")] = None,
) -> None:
    """Find the homography from A to B, in pixels of the original images; exit with 1 if there is none."""
    from time import perf_counter

    from vpr_dhe.errors import AlignmentError
    from vpr_dhe.images import decode_named
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.report.pictures.drawing import write_picture
    from vpr_dhe.report.pictures.panels import draw_alignment
    from vpr_dhe.report.tables.answers import evidence_document
    from vpr_dhe.verification.build import build_aligner

    require_writable(overlay)
    a, b = decode_named(image_a), decode_named(image_b)
    with stages("step") as start:
        networks, where = load_networks(weights or []), pick_device(device)
        align = build_aligner(method, model, networks, where, start_progress=start, max_seconds=max_seconds)
        started = perf_counter()
        found = align(a, b)
        elapsed_ms = 1e3 * (perf_counter() - started)
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
