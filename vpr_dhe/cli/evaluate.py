"""`vpr-dhe evaluate`: recall@N of a model and its verifiers on a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import cache_folder, parse_ranks, require_writable, say, say_skipped, stages
from vpr_dhe.cli.options import ModelOptions, ProtocolOptions, VerifiersOptions, say_if_slow
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from vpr_dhe.evaluation.runs import EvaluationResult, Tools

NAME = "evaluate"


def run(
    data: Annotated[Path, typer.Argument(help="Data set in a layout as published.")],
    choices: ProtocolOptions,
    verifiers: VerifiersOptions,
    model: ModelOptions,
    layout: Annotated[str, typer.Option(help="auto, vpr, msls, folders, kapture or colmap.")] = AUTO,
    queries_limit: Annotated[int | None, typer.Option(min=1, help="A quick look: ask only so many queries.")] = None,
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to verify per query.")] = 100,
    recall_at: Annotated[str, typer.Option(help="Values of N, separated by commas.")] = "1,5,10,20",
    denominator: Annotated[str, typer.Option(help="Recall of all queries, or of those with-positive.")] = "all",
    one_per_panorama: Annotated[
        bool, typer.Option("--one-per-panorama", help="Of one panorama's cutouts only the best counts (Tokyo 24/7).")
    ] = False,
    codec: Annotated[str, typer.Option(help="How local maps are stored: auto, float16, int8, ...")] = AUTO,
    index_type: Annotated[str, typer.Option(help="How vectors are searched: auto, flat, hnsw, ...")] = AUTO,
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="New folder for predictions as other tools read them.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with curves and the worst queries here.")
    ] = None,
    cache: Annotated[
        str, typer.Option(help="Folder that keeps features of databases; auto is in ~/.cache, none keeps nothing.")
    ] = AUTO,
    batch_size: Annotated[int, typer.Option(min=1, help="Database images per step of the extractor.")] = 8,
) -> None:
    """Measure how often the right place is among the first N, and what each verifier makes of it."""
    from vpr_dhe.evaluation.evaluate import evaluate
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.report.html.evaluation_report import evaluation_report
    from vpr_dhe.report.html.match_report import MAX_QUERIES, write_report
    from vpr_dhe.report.tables.evaluation import evaluation_document, evaluation_table, write_document
    from vpr_dhe.report.tables.predictions import require_new_folder, write_predictions

    require_writable(out)
    require_writable(report)
    if predictions:
        require_new_folder(predictions)
    kept = cache_folder(cache, "databases")
    ranks, loading = parse_ranks(recall_at), model.loading()
    say_if_slow(verifiers.names, rerank)
    with stages() as start_progress:

        def inspect(result: "EvaluationResult", tools: "Tools") -> None:
            if report:
                progress = start_progress("report", min(MAX_QUERIES, len(result.dataset.queries.records)))
                write_report(evaluation_report(result, tools, provenance(loading["device"]), progress), report)

        result = evaluate(
            data,
            layout=layout,
            protocol=choices.protocol(),
            queries_limit=queries_limit,
            model=model.model,
            verifiers=verifiers.names,
            weights=verifiers.weights or (),
            rerank=rerank,
            ranks=ranks,
            denominator=denominator,
            one_per_panorama=one_per_panorama,
            codec=codec,
            index_type=index_type,
            cache=kept,
            **loading,
            batch_size=batch_size,
            require_truth=predictions is None and report is None,
            start_progress=start_progress,
            inspect=inspect,
        )
    _say_unreadable(result)
    if kept:
        say(f"features of databases are kept in {kept} (--cache)")
    print(evaluation_table(result))
    if out:
        write_document(evaluation_document(result, provenance(loading["device"])), out)
    if predictions:
        for note in write_predictions(result, predictions):
            say(note)


def _say_unreadable(result: "EvaluationResult") -> None:
    dataset = result.dataset
    for split, images in (
        (dataset.database, result.unreadable_database),
        (dataset.queries, result.unreadable_queries),
    ):
        for image in images:
            say_skipped(str(split.folder / image.path), image.reason)
