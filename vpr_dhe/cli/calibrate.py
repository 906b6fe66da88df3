"""`vpr-dhe calibrate`: how likely is it that the best match shows the query's place?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vpr_dhe.cli.common import say, say_skipped, stages
from vpr_dhe.cli.options import IndexModelOptions, ProtocolOptions, VerifierOptions
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from vpr_dhe.evaluation.calibration_runs import Checked

NAME = "calibrate"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    choices: ProtocolOptions,
    verification: VerifierOptions,
    model: IndexModelOptions,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set whose queries are asked; without it, warped views of the indexed images are."),
    ] = None,
    layout: Annotated[str, typer.Option(help="Of DATA: auto, vpr, msls, folders, kapture or colmap.")] = AUTO,
    queries_limit: Annotated[int | None, typer.Option(min=1, help="Ask at most so many. [200 without --data]")] = None,
    prior: Annotated[float, typer.Option(help="Share of queries whose place the index holds, between 0 and 1.")] = 0.5,
    method: Annotated[
        Literal["logistic", "isotonic"], typer.Option(help="How evidence becomes a probability.")
    ] = "logistic",
) -> None:
    """Learn how likely the best match is to be right, for this verifier and --rerank, and keep that with the index."""
    from vpr_dhe.evaluation.calibrate import calibrate_index

    verification.say_if_slow()
    with stages("query") as start_progress:
        report = calibrate_index(
            index,
            data=data,
            layout=layout,
            protocol=choices.protocol(),
            queries_limit=queries_limit,
            verifier=verification.verifier,
            weights=verification.weights or (),
            rerank=verification.rerank,
            prior=prior,
            method=method,
            model=model.model,
            **model.loading(),
            start_progress=start_progress,
            note=say,
        )
    for query in report.unreadable:
        say_skipped(query.path, query.reason)
    calibration = report.calibration
    wrong = f"{calibration.examples - calibration.right} of {calibration.examples} best matches wrong"
    print(
        f"{index}: calibrated for {verification.verifier}, top {verification.rerank}, on {report.queries} queries, "
        f"{wrong}; {_on_other_places(report.held_out)}"
    )


def _on_other_places(held_out: "Checked | None") -> str:
    if held_out is None:
        return "too few places to check it on others"
    return (
        f"on places held out: Brier score {held_out.brier_score:.3f}, "
        f"expected calibration error {held_out.expected_calibration_error:.3f}"
    )
