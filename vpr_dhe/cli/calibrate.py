"""`vpr-dhe calibrate`: probability that the best match shows the query's place."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vpr_dhe.cli.shared.callbacks import existing_data
from vpr_dhe.cli.shared.options import IndexArgument, IndexModelOptions, LayoutOption, ProtocolOptions, RankingOptions
from vpr_dhe.cli.shared.progress import print_stderr, progress_stages, report_skipped
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from vpr_dhe.evaluation.calibration.held_out import HeldOutScores

NAME = "calibrate"
EXAMPLES = """
vpr-dhe calibrate my-index
vpr-dhe calibrate my-index --data labelled --verifier poselib
"""


def run(
    index: IndexArgument,
    choices: ProtocolOptions,
    verification: RankingOptions,
    model: IndexModelOptions,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Place data set with labelled queries. [warped views of the indexed images]",
            callback=existing_data,
        ),
    ] = None,
    layout: LayoutOption = AUTO,
    queries_limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of queries. [200 without --data]")
    ] = None,
    prior: Annotated[
        float, typer.Option(metavar="SHARE", help="Expected share of queries whose place is indexed, between 0 and 1.")
    ] = 0.5,
    method: Annotated[Literal["logistic", "isotonic"], typer.Option(help="Calibration method.")] = "logistic",
) -> None:
    """Fit the probability that the best match is right, for a verifier and --rerank, and store it in the index."""
    from vpr_dhe.evaluation.calibrate import calibrate_index

    verification.warn_if_slow()
    with progress_stages("query") as start_progress:
        report = calibrate_index(
            index,
            data=data,
            layout=layout,
            protocol=choices.protocol(),
            queries_limit=queries_limit,
            verifier=verification.verifier,
            weights=verification.weights or (),
            rerank=verification.rerank,
            rank_by=verification.rank_by,
            adapt=verification.adapt,
            stop_early=verification.stop_early,
            prior=prior,
            method=method,
            model=model.model,
            **model.loading(),
            start_progress=start_progress,
            note=print_stderr,
        )
    for query in report.unreadable:
        report_skipped(query.path, query.reason)
    calibration = report.calibration
    wrong = f"{calibration.examples - calibration.right} of {calibration.examples} best matches wrong"
    print(
        f"{index}: calibrated for {verification.verifier}, top {verification.rerank}, on {report.queries} queries, "
        f"{wrong}; {_held_out_text(report.held_out)}"
    )


def _held_out_text(held_out: "HeldOutScores | None") -> str:
    if held_out is None:
        return "too few places to score held-out ones"
    return (
        f"on places held out: Brier score {held_out.brier_score:.3f}, "
        f"expected calibration error {held_out.expected_calibration_error:.3f}"
    )
