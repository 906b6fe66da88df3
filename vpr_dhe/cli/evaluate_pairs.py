"""`vpr-dhe evaluate-pairs`: corner errors of methods of alignment on image pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import require_writable, stages
from vpr_dhe.cli.options import PairModelOptions, VerifiersOptions
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.verification.names import DEFAULT_VERIFIER

NAME = "evaluate-pairs"


@dataclass(frozen=True)
class MethodsOptions(VerifiersOptions):
    """Methods that are compared, each of which has to find a homography."""

    verifier: Annotated[
        list[str] | None, typer.Option(help=f"One or several methods; see `vpr-dhe verifiers`. [{DEFAULT_VERIFIER}]")
    ] = None


def run(
    data: Annotated[Path, typer.Argument(help="Folder of image pairs with known homographies.")],
    methods: MethodsOptions,
    model: PairModelOptions,
    layout: Annotated[str, typer.Option(help="auto, pairs, hpatches, aligned or warps.")] = AUTO,
    pairs_limit: Annotated[
        int | None, typer.Option("--pairs-limit", "--queries-limit", min=1, help="A quick look: only so many pairs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
) -> None:
    """Measure how far off the homographies are that each method finds between two images."""
    from vpr_dhe.evaluation.evaluate import evaluate_pairs
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.report.tables.evaluation import write_document
    from vpr_dhe.report.tables.pairs import alignment_document, alignment_table

    require_writable(out)
    loading = model.loading()
    with stages("pair") as start_progress:
        result = evaluate_pairs(
            data,
            layout=layout,
            pairs_limit=pairs_limit,
            methods=methods.names,
            model=model.model,
            weights=methods.weights or (),
            **loading,
            start_progress=start_progress,
        )
    print(alignment_table(result))
    if out:
        write_document(alignment_document(result, provenance(loading["device"])), out)
