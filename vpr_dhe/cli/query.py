"""`vpr-dhe query`: where were these photos taken?"""

import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from vpr_dhe.cli.common import (
    Device,
    Runtime,
    RuntimeOption,
    WeightsOption,
    pick_device,
    progress_bar,
    require_runtime,
    require_writable,
    say_skipped,
    say_slow,
)

if TYPE_CHECKING:
    from vpr_dhe.localizer import Localizer
    from vpr_dhe.report.formats import Answer, AnswerSheet

NAME = "query"


class Format(StrEnum):
    """Output formats."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    hloc = "hloc"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    queries: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Photos, or folders of photos.")],
    top_k: Annotated[int, typer.Option(min=1, help="Answers per query.")] = 5,
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to verify per query.")] = 100,
    verifier: Annotated[str, typer.Option(help="Verifier, or none; see `vpr-dhe verifiers`.")] = "magsac",
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Call the place unknown where the best match is less likely right; see calibrate."
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write the results here instead of stdout.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the matches here, too.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the index's model is now, if it moved or was exported.")
    ] = None,
    runtime: RuntimeOption = Runtime.auto,
    weights: WeightsOption = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
) -> None:
    """Find the places that photos show."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.localizer import Localizer
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.report.formats import FORMATS, AnswerSheet, json_line

    require_writable(out)
    require_writable(report)
    paths = [path for given in queries for path in _expand(given)]
    say_slow(verifier, rerank)
    localizer = Localizer.open(
        index,
        verifier=verifier,
        rerank=rerank,
        device=pick_device(device),
        model=model,
        networks=load_networks(weights or []),
    )
    require_runtime(runtime, localizer.extractor.spec.model)
    if min_probability is not None:
        localizer.require_calibration()
    answers: list[Answer] = []
    with _sink(out) as sink, progress_bar(len(paths), "querying", "image") as bar:
        for path in paths:
            answers.append(_answer(localizer, path, top_k, min_probability))
            if format is Format.jsonl:
                print(json_line(answers[-1]), file=sink, flush=True)
            bar.update()
        sheet = AnswerSheet(str(index), localizer.places.spec.model, verifier, tuple(answers))
        if format is not Format.jsonl:
            print(FORMATS[format](sheet), file=sink)
    if report:
        _write_report(sheet, index, report)
    if all(answer.error for answer in answers):
        raise BadInputError(f"none of the {len(answers)} queries could be read")


def _write_report(sheet: "AnswerSheet", index: Path, report: Path) -> None:
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.report.match_report import MOST_QUERIES, write_report
    from vpr_dhe.report.query_report import query_report

    with progress_bar(min(MOST_QUERIES, len(sheet.answers)), "report", "query") as bar:
        write_report(query_report(sheet, PlaceIndex.open(index), bar.update), report)


def _sink(out: Path | None) -> AbstractContextManager[TextIO]:
    # A file name may hold bytes that are no UTF-8; they pass through as they are.
    return out.open("w", encoding="utf-8", errors="surrogateescape") if out else nullcontext(sys.stdout)


def _expand(given: Path) -> list[Path]:
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.images import list_images

    if given.is_dir():
        return [given / path for path in list_images(given)]
    if not given.exists():
        raise BadInputError(f"query {given} does not exist; give images or folders of images")
    return [given]


def _answer(localizer: "Localizer", path: Path, top_k: int, min_probability: float | None) -> "Answer":
    from vpr_dhe.errors import ImageError
    from vpr_dhe.report.formats import Answer

    try:
        return Answer(str(path), localizer.localize(path, top_k=top_k, min_probability=min_probability))
    except ImageError as error:
        say_skipped(str(path), str(error))
        return Answer(str(path), error=str(error))
