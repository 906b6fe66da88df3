"""`vpr-dhe query`: where were these photos taken?"""

import sys
from collections.abc import Iterator, Sequence
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
    from vpr_dhe.sequences.stream import LocalizedFrame

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
    sequence: Annotated[bool, typer.Option("--sequence", help="The photos are frames of one way, in order.")] = False,
    max_step_m: Annotated[
        float | None, typer.Option(help="Frames of a sequence lie at most so far apart, by positions of the index.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
) -> None:
    """Find the places that photos show."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.localizer import Localizer
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.report.formats import FORMATS, AnswerSheet, json_line

    require_writable(out)
    require_writable(report)
    paths = [path for given in queries for path in _expand(given)]
    _require_consistent(sequence, max_step_m, min_probability, format, report)
    say_slow(verifier, rerank)
    require_runtime(runtime, model or PlaceIndex.open(index).spec.model)
    localizer = Localizer.open(
        index,
        verifier=verifier,
        rerank=rerank,
        device=pick_device(device),
        model=model,
        networks=load_networks(weights or []),
    )
    if min_probability is not None:
        localizer.require_calibration()
    if sequence:
        asked = _in_sequence(localizer, paths, top_k, max_step_m)
    else:
        asked = _each(localizer, paths, top_k, min_probability)
    answers: list[Answer] = []
    with _sink(out) as sink, progress_bar(len(paths), "querying", "image") as bar:
        for answer in asked:
            answers.append(answer)
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


def _require_consistent(
    sequence: bool, max_step_m: float | None, min_probability: float | None, format: Format, report: Path | None
) -> None:
    """Refuse options that say nothing of each other."""
    from vpr_dhe.errors import BadInputError

    if max_step_m is not None and not sequence:
        raise BadInputError("--max-step-m is about frames of a sequence; add --sequence, or leave it out")
    if min_probability is not None and sequence:
        raise BadInputError(
            "--min-probability judges each photo by itself, and with --sequence a belief does; leave one of them out"
        )
    if sequence and (report or format in (Format.csv, Format.hloc)):
        raise BadInputError("a belief over a sequence is told by --format table, json and jsonl alone; use one of them")


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


def _each(
    localizer: "Localizer", paths: Sequence[Path], top_k: int, min_probability: float | None
) -> Iterator["Answer"]:
    from vpr_dhe.errors import ImageError
    from vpr_dhe.report.formats import Answer

    for path in paths:
        try:
            yield Answer(str(path), localizer.localize(path, top_k=top_k, min_probability=min_probability))
        except ImageError as error:
            say_skipped(str(path), str(error))
            yield Answer(str(path), error=str(error))


def _in_sequence(
    localizer: "Localizer", paths: Sequence[Path], top_k: int, max_step_m: float | None
) -> Iterator["Answer"]:
    """Frames in the order of their names, in which runs of digits count as numbers."""
    from vpr_dhe.sequences.motion import PositionMotion
    from vpr_dhe.sequences.place_map import natural_key

    places = localizer.place_map()
    motion = None if max_step_m is None else PositionMotion(places, max_step_m=max_step_m)
    ordered = sorted(paths, key=lambda path: natural_key(str(path)))
    frames = localizer.stream(ordered, tracker=localizer.tracker(places, motion), top_k=top_k)
    return (_of_frame(path, frame) for path, frame in zip(ordered, frames, strict=True))


def _of_frame(path: Path, frame: "LocalizedFrame") -> "Answer":
    from vpr_dhe.report.formats import Answer

    if frame.error:
        say_skipped(str(path), frame.error)
    return Answer(str(path), frame.localization, frame.error, frame.belief)
