"""`vpr-dhe calibrate`: how likely is it that the best match shows the query's place?"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import (
    Device,
    WeightsOption,
    pick_device,
    progress_bar,
    say,
    say_skipped,
    say_slow,
)
from vpr_dhe.cli.protocol import ProtocolOptions

if TYPE_CHECKING:
    from vpr_dhe.datasets import Protocol
    from vpr_dhe.evaluation.calibration_runs import Checked, LabelledQuery
    from vpr_dhe.index.place_index import PlaceIndex

NAME = "calibrate"
_AUTO = "auto"
# Views of so many indexed images take a minute or two to ask.
_OWN_QUERIES = 200


class MethodChoice(StrEnum):
    """How evidence becomes a probability."""

    logistic = "logistic"
    isotonic = "isotonic"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    choices: ProtocolOptions,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set whose queries are asked; without it, warped views of the indexed images are."),
    ] = None,
    layout: Annotated[str, typer.Option(help="Of DATA: auto, vpr, msls, folders, kapture or colmap.")] = _AUTO,
    queries_limit: Annotated[int | None, typer.Option(min=1, help="Ask at most so many. [200 without --data]")] = None,
    verifier: Annotated[str, typer.Option(help="Verifier, or none; see `vpr-dhe verifiers`.")] = "magsac",
    weights: WeightsOption = None,
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to look at per query.")] = 100,
    prior: Annotated[float, typer.Option(help="Share of queries whose place the index holds, between 0 and 1.")] = 0.5,
    method: Annotated[MethodChoice, typer.Option(help="How evidence becomes a probability.")] = MethodChoice.logistic,
    model: Annotated[str | None, typer.Option(help="Where the index's model file is now, if it moved.")] = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
) -> None:
    """Learn how likely the best match is to be right, for this verifier and --rerank, and keep that with the index."""
    from vpr_dhe.evaluation.calibration_runs import ask, check
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.geography.distance import RADIUS_M
    from vpr_dhe.index.place_index import PlaceIndex, require_same_features
    from vpr_dhe.localization.calibration.fitting import Assumptions, Method, fit
    from vpr_dhe.localization.calibration.probability import Conditions
    from vpr_dhe.localization.calibration.stored import calibrating
    from vpr_dhe.localization.database import PinnedIndex
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.verification.build import build_verifier
    from vpr_dhe.verification.estimators.registry import Resources

    opened = PlaceIndex.open(index)
    # From the beginning: nobody shall have asked for minutes to find another process writing.
    with calibrating(index) as store:
        opened.refresh()
        protocol = choices.protocol()
        assumptions = Assumptions(
            RADIUS_M if protocol.radius_m is None else protocol.radius_m, prior, Method(method.value)
        )
        queries = _queries(opened, data, layout, protocol, queries_limit, assumptions.radius_m)
        where = pick_device(device)
        extractor = load_extractor(model or opened.spec.model, where)
        require_same_features(opened.spec, extractor.spec)
        resources = Resources(extractor, load_networks(weights or []), where)
        places = PinnedIndex(opened.snapshot, build_verifier(verifier, resources))
        conditions = Conditions.of(opened.manifest, verifier, rerank, resources)
        say_slow(verifier, rerank)
        with progress_bar(len(queries), "asking", "query") as bar:
            asked = ask(queries, places, extractor, rerank=rerank, radius_m=assumptions.radius_m, progress=bar.update)
        for query in asked.unreadable:
            say_skipped(query.path, query.reason)
        calibration = fit(asked.examples, assumptions, conditions, len(opened))
        checked = check(asked.examples, assumptions, conditions)
        store(calibration)
    done = (
        f"{index}: calibrated for {verifier}, top {rerank}, on {len(queries) - len(asked.unreadable)} queries, "
        f"{calibration.examples - calibration.right} of {calibration.examples} best matches wrong"
    )
    print(f"{done}; {_on_other_places(checked)}")


def _on_other_places(checked: "Checked | None") -> str:
    if checked is None:
        return "too few places to check it on others"
    return (
        f"on places held out: Brier score {checked.brier_score:.3f}, "
        f"expected calibration error {checked.expected_calibration_error:.3f}"
    )


def _queries(
    index: "PlaceIndex", data: Path | None, layout: str, protocol: "Protocol", limit: int | None, radius_m: float
) -> "Sequence[LabelledQuery]":
    from vpr_dhe.datasets import read_places
    from vpr_dhe.datasets.base import option
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.evaluation.calibration_runs import indexed, labelled_queries

    if data is not None:
        dataset = read_places(data, layout, protocol)
        unlabelled = len(index) - sum(id is not None for id in indexed(dataset.database, index))
        if unlabelled:
            say(f"{unlabelled} of {len(index)} indexed images are not in the database of {data}; they count as wrong")
        return labelled_queries(dataset if limit is None else dataset.limited(limit), index)
    if others := [option(name) for name in protocol.chosen if name != "radius_m"]:
        raise BadInputError(f"{', '.join(others)}: about labelled queries, and there are none; give them with --data")
    from vpr_dhe.evaluation.warped_queries import warped_queries

    return warped_queries(index, limit or _OWN_QUERIES, radius_m)
