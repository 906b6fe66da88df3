"""Calibration of an index: fit the probability that the best match of a query is right, and store it in the index."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.datasets.base import option
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration.examples import run_queries
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Method, fit
from vpr_dhe.evaluation.calibration.held_out import HeldOutScores, score_held_out
from vpr_dhe.evaluation.calibration.labelled_queries import LabelledQuery, indexed_ids, labelled_queries
from vpr_dhe.evaluation.calibration.warped_queries import warped_queries
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.probability import Calibration
from vpr_dhe.localization.calibration.storage import calibrating
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.early_stop import require_margin
from vpr_dhe.localization.loading import load_setup
from vpr_dhe.localization.ranking import require_rerank
from vpr_dhe.records import StartProgress, StrPath, without_progress
from vpr_dhe.runtime.choices import AUTO, FP32, Adapt, Precision, RankByChoice, Runtime
from vpr_dhe.verification.names import DEFAULT_VERIFIER

# Localizing this many takes a minute or two.
_WARPED_QUERIES = 200


@dataclass(frozen=True)
class CalibrationReport:
    """Calibration, and the queries that it was fitted on.

    `queries` is the number of readable queries. `held_out` scores the same kind of calibration on places that it was
    not fitted on; None if there are too few places.
    """

    calibration: Calibration
    queries: int
    unreadable: tuple[SkippedImage, ...]
    held_out: HeldOutScores | None


def calibrate_index(
    index: StrPath,
    *,
    data: StrPath | None = None,
    layout: str = AUTO,
    protocol: Protocol | None = None,
    queries_limit: int | None = None,
    verifier: str = DEFAULT_VERIFIER,
    weights: Iterable[StrPath] = (),
    rerank: int = 100,
    rank_by: RankByChoice = AUTO,
    adapt: Adapt = AUTO,
    stop_early: float | None = None,
    prior: float = 0.5,
    method: str = "logistic",
    model: str | None = None,
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: Precision = FP32,
    start_progress: StartProgress = without_progress,
    note: Callable[[str], object] = lambda _: None,
) -> CalibrationReport:
    """Fit a calibration for a verifier and a number of candidates, and store it in place of any earlier one.

    Args:
        index: folder of the index.
        data: place data set whose database is indexed; its queries are localized. Without one, warped views of indexed
            images are the queries.
        layout: of the data set; `auto` recognises it.
        protocol: choices within the layout; without data, only its radius is used.
        queries_limit: maximum number of queries; by default all of the data set, or 200 warped views.
        verifier: by name.
        weights: network files of verifiers that need one.
        rerank: number of candidates to verify per query, at least 1.
        rank_by: order of verified candidates; `auto` is the index's.
        adapt: search vectors adapted to their map where the index is, or, with `off`, as extracted.
        stop_early: margin at which verification stops, as for `Localizer`.
        prior: share of queries whose place the index holds, between 0 and 1.
        method: `logistic` or `isotonic`.
        model: new place of the index's model, if it was moved or exported.
        device: a torch device.
        runtime: as for `load_extractor`.
        precision: of features and of the DHE head; `int8` is of the head alone.
        start_progress: called with the name and length of each stage.
        note: called with a sentence about unlabelled images of the index, before the queries are localized.

    Raises:
        IndexBusyError: if another process is writing to the index.
        IndexFormatError, IndexDamagedError: if the index cannot be read, or was made with another model.
        BadInputError: if an argument is invalid, there are no labels, or nothing to fit on.
        ModelError, VerifierError: if model or verifier are unknown, or do not fit each other.
    """
    require_margin(stop_early)
    require_rerank(rerank)
    opened = PlaceIndex.open(index)
    # Locked from the start, so that another writer shows now and not after minutes of queries.
    with calibrating(index) as store:
        opened.refresh()
        protocol = protocol or Protocol()
        radius_m = RADIUS_M if protocol.radius_m is None else protocol.radius_m
        assumptions = Assumptions(radius_m, prior, _method(method))
        if data is None:
            queries = _warped_views(opened, layout, protocol, queries_limit, radius_m)
        else:
            queries = _dataset_queries(opened, data, layout, protocol, queries_limit, note)
        setup = load_setup(
            opened,
            verifier=verifier,
            rerank=rerank,
            rank_by=rank_by,
            adapt=adapt,
            stop_early=stop_early,
            device=device,
            model=model,
            weights=weights,
            runtime=runtime,
            precision=precision,
        )
        progress = start_progress("querying", len(queries))
        run = run_queries(
            queries,
            PinnedIndex(opened.snapshot, setup.verifier, adapt=adapt),
            setup.extractor,
            rerank=rerank,
            radius_m=radius_m,
            rank_by=setup.rank_by,
            stop_early=stop_early,
            progress=progress,
        )
        calibration = fit(run.examples, assumptions, setup.conditions, len(opened))
        held_out = score_held_out(run.examples, assumptions, setup.conditions)
        store(calibration)
    return CalibrationReport(calibration, len(queries) - len(run.unreadable), run.unreadable, held_out)


def _method(name: str) -> Method:
    try:
        return Method(name)
    except ValueError:
        raise BadInputError(f"the method is {name!r}; expected {' or '.join(Method)}") from None


def _dataset_queries(
    index: PlaceIndex,
    data: StrPath,
    layout: str,
    protocol: Protocol,
    limit: int | None,
    note: Callable[[str], object],
) -> Sequence[LabelledQuery]:
    dataset = read_places(data, layout, protocol)
    unlabelled = len(index) - sum(id is not None for id in indexed_ids(dataset.database, index))
    if unlabelled:
        note(f"{unlabelled} of {len(index)} indexed images are not in the database of {data}; they count as wrong")
    return labelled_queries(dataset if limit is None else dataset.limited(limit), index)


def _warped_views(
    index: PlaceIndex, layout: str, protocol: Protocol, limit: int | None, radius_m: float
) -> Sequence[LabelledQuery]:
    of_layout = [] if layout == AUTO else ["--layout"]
    if others := [*of_layout, *(option(name) for name in protocol.chosen if name != "radius_m")]:
        raise BadInputError(f"{', '.join(others)} needs labelled queries; give a data set with --data")
    return warped_queries(index, limit or _WARPED_QUERIES, radius_m)
