"""`vpr-dhe evaluate-pairs`: corner errors of alignment methods on image pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_data, known_aligners, one_of
from vpr_dhe.cli.shared.options import PairModelOptions, ResultsOption, VerifiersOptions, complete_aligner
from vpr_dhe.cli.shared.progress import progress_stages
from vpr_dhe.runtime.choices import AUTO, PAIR_LAYOUT_NAMES
from vpr_dhe.verification.names import DEFAULT_VERIFIER

NAME = "evaluate-pairs"
EXAMPLES = """
vpr-dhe evaluate-pairs hpatches --verifier magsac,poselib --out pairs.json
"""


@dataclass(frozen=True)
class MethodsOptions(VerifiersOptions):
    """Alignment methods to compare."""

    verifier: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Alignment methods, repeated or separated by commas; auto, or see `vpr-dhe verifiers`. "
            f"[{DEFAULT_VERIFIER}]",
            callback=known_aligners,
            autocompletion=complete_aligner,
        ),
    ] = None


def run(
    data: Annotated[
        Path, typer.Argument(help="Folder of image pairs with known homographies.", callback=existing_data)
    ],
    methods: MethodsOptions,
    model: PairModelOptions,
    layout: Annotated[
        str,
        typer.Option(
            metavar="|".join(PAIR_LAYOUT_NAMES),
            help="Layout of DATA; auto recognises all but warps.",
            callback=one_of("layout", PAIR_LAYOUT_NAMES),
        ),
    ] = AUTO,
    pairs_limit: Annotated[
        int | None,
        typer.Option("--pairs-limit", "--queries-limit", min=1, help="Maximum number of pairs, for a quick look."),
    ] = None,
    out: ResultsOption = None,
) -> None:
    """Measure the corner errors of each method's homographies on image pairs."""
    from vpr_dhe.evaluation.evaluate import evaluate_pairs
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.report.tables.evaluation import write_document
    from vpr_dhe.report.tables.pairs import alignment_document, alignment_table

    loading = model.loading()
    with progress_stages("pair") as start_progress:
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
