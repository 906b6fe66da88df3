"""`vpr-dhe evaluate`: recall@N of a model and verifiers on a place data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_data, one_of, writable_file
from vpr_dhe.cli.shared.help import OUTPUT
from vpr_dhe.cli.shared.options import (
    CODEC_OPTION,
    INDEX_TYPE_OPTION,
    BitDepthOption,
    LayoutOption,
    ModelOptions,
    ProtocolOptions,
    RerankOption,
    ResultsOption,
    StopEarlyOption,
    VerifiersOptions,
    warn_if_slow,
)
from vpr_dhe.cli.shared.progress import (
    cache_folder,
    checked_ranks,
    parse_ranks,
    print_stderr,
    progress_stages,
    report_skipped,
)
from vpr_dhe.cli.shared.rerun import RerunOption
from vpr_dhe.runtime.choices import AUTO, DENOMINATORS, Adapt, RankBy

if TYPE_CHECKING:
    from vpr_dhe.evaluation.place_evaluation import EvaluationResult, Tools
    from vpr_dhe.records import StartProgress

NAME = "evaluate"
EXAMPLES = """
vpr-dhe evaluate pitts30k --verifier magsac,poselib --out results.json
vpr-dhe evaluate my-data --radius-m 25 --report report.html
vpr-dhe evaluate msls --layout msls --split val --queries-limit 100
"""


@dataclass(frozen=True)
class DataOptions:
    """Data set, and the number of its queries."""

    data: Annotated[Path, typer.Argument(help="Place data set in a published layout.", callback=existing_data)]
    layout: LayoutOption = AUTO
    queries_limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of queries, for a quick look.")] = (
        None
    )


@dataclass(frozen=True)
class ComparedRankingOptions(VerifiersOptions):
    """Verifiers to compare, their number of candidates, and the order of these."""

    rerank: RerankOption = 100
    rank_by: Annotated[
        RankBy | None,
        typer.Option(
            help="Rank by inliers, or by evidence (inliers and similarity together). [evidence; inliers for published "
            "weights]"
        ),
    ] = None
    adapt: Annotated[
        Adapt | None,
        typer.Option(help="Adapt vectors to their map (auto), or not (off). [auto; off for published weights]"),
    ] = None
    stop_early: StopEarlyOption = None


@dataclass(frozen=True)
class RecallOptions:
    """Ranks and queries that recall is measured at."""

    recall_at: Annotated[
        str, typer.Option(metavar="N,N,...", help="Values of N, separated by commas.", callback=checked_ranks)
    ] = "1,5,10,20"
    denominator: Annotated[
        str,
        typer.Option(
            metavar="|".join(DENOMINATORS),
            help="Denominator of recall: all queries, or those with a positive.",
            callback=one_of("denominator", DENOMINATORS),
        ),
    ] = "all"
    one_per_panorama: Annotated[
        bool, typer.Option("--one-per-panorama", help="Count only the best image of each panorama (Tokyo 24/7).")
    ] = False


@dataclass(frozen=True)
class IndexOptions:
    """Index of the database."""

    codec: Annotated[str, CODEC_OPTION] = AUTO
    index_type: Annotated[str, INDEX_TYPE_OPTION] = AUTO
    bit_depth: BitDepthOption = None


@dataclass(frozen=True)
class FeatureOptions:
    """Extraction of features, and the folder that caches them."""

    cache: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FOLDER",
            help="Folder that caches features of databases and queries; auto is in ~/.cache, none keeps nothing.",
        ),
    ] = AUTO
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch of the extractor.")] = 8


@dataclass(frozen=True)
class OutputOptions:
    """Files that results are written to."""

    TITLE = OUTPUT

    out: ResultsOption = None
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="New folder for predictions in the formats of other tools."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(help="Write an HTML report with curves and the worst queries here.", callback=writable_file),
    ] = None
    rerun: RerunOption = None


def run(
    data: DataOptions,
    choices: ProtocolOptions,
    verification: ComparedRankingOptions,
    model: ModelOptions,
    recall: RecallOptions,
    index: IndexOptions,
    output: OutputOptions,
    features: FeatureOptions,
) -> None:
    """Measure recall@N of retrieval, and of re-ranking by each verifier."""
    from vpr_dhe.evaluation.evaluate import evaluate
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.report.tables.evaluation import evaluation_document, evaluation_table, write_document
    from vpr_dhe.report.tables.predictions import require_new_folder, write_predictions

    if output.predictions:
        require_new_folder(output.predictions)
    cache, loading = cache_folder(features.cache, "databases"), model.loading()
    warn_if_slow(verification.names, verification.rerank)
    with progress_stages() as start_progress:
        result = evaluate(
            data.data,
            layout=data.layout,
            protocol=choices.protocol(),
            queries_limit=data.queries_limit,
            model=model.model,
            verifiers=verification.names,
            weights=verification.weights or (),
            rerank=verification.rerank,
            rank_by=verification.rank_by,
            adapt=verification.adapt,
            stop_early=verification.stop_early,
            ranks=parse_ranks(recall.recall_at),
            denominator=recall.denominator,
            one_per_panorama=recall.one_per_panorama,
            codec=index.codec,
            bit_depth=index.bit_depth or AUTO,
            index_type=index.index_type,
            cache=cache,
            **loading,
            batch_size=features.batch_size,
            require_truth=output.predictions is None and output.report is None and output.rerun is None,
            start_progress=start_progress,
            inspect=_report_writer(output, start_progress, loading["device"]),
        )
    _report_unreadable(result)
    if cache:
        print_stderr(f"features of databases are kept in {cache}, and those of queries, too (--cache)")
    print(evaluation_table(result))
    if output.out:
        write_document(evaluation_document(result, provenance(loading["device"])), output.out)
    if output.predictions:
        for note in write_predictions(result, output.predictions):
            print_stderr(note)


def _report_writer(
    output: OutputOptions, start_progress: "StartProgress", device: str
) -> "Callable[[EvaluationResult, Tools], None]":
    """Return a function that writes the HTML report of a result and its recording, if there are any to write."""

    def write(result: "EvaluationResult", tools: "Tools") -> None:
        from vpr_dhe.evaluation.provenance import provenance
        from vpr_dhe.report.html.evaluation_report import evaluation_report
        from vpr_dhe.report.html.match_report import MAX_QUERIES, write_report

        if output.report:
            progress = start_progress("report", min(MAX_QUERIES, len(result.dataset.queries.records)))
            write_report(evaluation_report(result, tools, provenance(device), progress), output.report)
        if output.rerun:
            from vpr_dhe.report.rerun.evaluation import replay_evaluation

            progress = start_progress("recording", len(result.dataset.queries.records))
            replay_evaluation(output.rerun, result, tools, progress)

    return write


def _report_unreadable(result: "EvaluationResult") -> None:
    dataset = result.dataset
    for split, images in (
        (dataset.database, result.unreadable_database),
        (dataset.queries, result.unreadable_queries),
    ):
        for image in images:
            report_skipped(str(split.folder / image.path), image.reason)
