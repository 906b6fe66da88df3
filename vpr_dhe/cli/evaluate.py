"""`vpr-dhe evaluate`: recall@N of a model and its verifiers on a data set, or corner errors on image pairs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import (
    Device,
    WeightsOption,
    kept_folder,
    parse_names,
    parse_ranks,
    pick_device,
    progress_bar,
    require_writable,
    say,
    say_skipped,
    say_slow,
)
from vpr_dhe.cli.protocol import ProtocolOptions

if TYPE_CHECKING:
    from vpr_dhe.datasets import PlaceDataset, Protocol
    from vpr_dhe.evaluation.recall import Denominator
    from vpr_dhe.evaluation.runs import Settings

NAME = "evaluate"
_DEFAULT_MODEL, _DEFAULT_VERIFIER = "sift-vlad", "magsac"
_AUTO = "auto"


@dataclass(frozen=True)
class _Features:
    """How images are described, and how what describes a database is stored."""

    model: str | None = None
    device: Device = Device.auto
    batch_size: int = 8
    codec: str = _AUTO
    index_type: str = _AUTO
    cache: str = _AUTO


@dataclass(frozen=True)
class _Methods:
    """Which verifiers are measured, and the networks of those that have one of their own."""

    names: tuple[str, ...]
    weights: tuple[Path, ...]


@dataclass(frozen=True)
class _Outputs:
    """Where results go besides the table."""

    results: Path | None
    predictions: Path | None
    report: Path | None


def run(
    data: Annotated[Path, typer.Argument(help="Data set in a layout as published, or a folder of image pairs.")],
    choices: ProtocolOptions,
    layout: Annotated[
        str,
        typer.Option(help="auto, vpr, msls, folders, kapture or colmap; of pairs: pairs, hpatches, aligned or warps."),
    ] = _AUTO,
    queries_limit: Annotated[int | None, typer.Option(min=1, help="A quick look: ask only so many queries.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name or file; sift-vlad for places, sparse keypoints for pairs.")
    ] = None,
    verifier: Annotated[
        list[str] | None, typer.Option(help="One or several verifiers, or none; see `vpr-dhe verifiers`. [magsac]")
    ] = None,
    weights: WeightsOption = None,
    rerank: Annotated[int, typer.Option(min=1, help="Candidates to verify per query.")] = 100,
    recall_at: Annotated[str, typer.Option(help="Values of N, separated by commas.")] = "1,5,10,20",
    denominator: Annotated[str, typer.Option(help="Recall of all queries, or of those with-positive.")] = "all",
    one_per_panorama: Annotated[
        bool, typer.Option("--one-per-panorama", help="Of one panorama's cutouts only the best counts (Tokyo 24/7).")
    ] = False,
    codec: Annotated[str, typer.Option(help="How local maps are stored: auto, float16, int8, ...")] = _AUTO,
    index_type: Annotated[str, typer.Option(help="How vectors are searched: auto, flat, hnsw, ...")] = _AUTO,
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="New folder for predictions as other tools read them.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with curves and the worst queries here.")
    ] = None,
    cache: Annotated[
        str, typer.Option(help="Folder that keeps features of databases; auto is in ~/.cache, none keeps nothing.")
    ] = _AUTO,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Database images per step of the extractor.")] = 8,
) -> None:
    """Measure how often the right place is among the first N, and what each verifier makes of it."""
    from vpr_dhe.evaluation.runs import Settings

    require_writable(out)
    require_writable(report)
    protocol = choices.protocol()
    settings = Settings(parse_ranks(recall_at), rerank, _denominator(denominator), one_per_panorama)
    features = _Features(model, device, batch_size, codec, index_type, cache)
    outputs = _Outputs(out, predictions, report)
    methods = _Methods(parse_names(verifier or [_DEFAULT_VERIFIER]), tuple(weights or ()))
    if _holds_pairs(data, layout, protocol):
        _require_about_pairs(protocol, settings, features, outputs)
        _evaluate_pairs(data, layout, methods, features, queries_limit, outputs)
    else:
        _evaluate_places(data, layout, protocol, methods, settings, features, queries_limit, outputs)


def _denominator(name: str) -> "Denominator":
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.evaluation.recall import Denominator

    try:
        return Denominator(name)
    except ValueError:
        raise BadInputError(f"--denominator is {name!r}; expected {' or '.join(Denominator)}") from None


def _holds_pairs(data: Path, layout: str, protocol: "Protocol") -> bool:
    """Whether DATA is image pairs: by the layout's name, or by its folders if nothing speaks of places."""
    from vpr_dhe.datasets import LAYOUTS
    from vpr_dhe.datasets.pairs import PAIR_LAYOUTS, recognise_pairs
    from vpr_dhe.errors import BadInputError

    known = [_AUTO, *LAYOUTS, *PAIR_LAYOUTS]
    if layout not in known:
        raise BadInputError(f"unknown layout {layout!r}; available: {', '.join(known)}")
    return layout in PAIR_LAYOUTS or (layout == _AUTO and not protocol.chosen and recognise_pairs(data) is not None)


def _evaluate_places(
    data: Path,
    layout: str,
    protocol: "Protocol",
    methods: _Methods,
    settings: "Settings",
    features: _Features,
    queries_limit: int | None,
    outputs: _Outputs,
) -> None:
    """Recall of retrieval and of each verifier on a data set of places."""
    from vpr_dhe.evaluation.feature_cache import FeatureCache
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.evaluation.runs import evaluate
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.report.html.evaluation_report import Tools, evaluation_report
    from vpr_dhe.report.html.match_report import MAX_QUERIES, write_report
    from vpr_dhe.report.tables.evaluation import evaluation_document, evaluation_table, write_document
    from vpr_dhe.report.tables.predictions import require_new_folder, write_predictions
    from vpr_dhe.verification.build import build_verifiers
    from vpr_dhe.verification.estimators.registry import Resources

    if outputs.predictions:
        require_new_folder(outputs.predictions)
    dataset = _read(data, layout, protocol, queries_limit, outputs)
    device = pick_device(features.device)
    extractor = load_extractor(features.model or _DEFAULT_MODEL, device)
    verifiers = build_verifiers(methods.names, Resources(extractor, load_networks(methods.weights), device))
    for name in verifiers:
        say_slow(name, settings.rerank)
    with kept_folder(features.cache, "databases") as cache:
        with progress_bar(len(dataset.database.records), "database", "image") as bar:
            index = FeatureCache(cache).index(
                dataset.database,
                extractor,
                batch_size=features.batch_size,
                codec=features.codec,
                index_type=features.index_type,
                progress=bar.update,
            )
        with progress_bar(len(dataset.queries.records), "queries", "image") as bar:
            result = evaluate(dataset, index, extractor, verifiers, settings, progress=bar.update)
        if outputs.report:
            with progress_bar(min(MAX_QUERIES, len(dataset.queries.records)), "report", "query") as bar:
                tools = Tools(index, extractor, verifiers)
                write_report(evaluation_report(result, tools, provenance(device), bar.update), outputs.report)
    for split, images in (
        (dataset.database, result.unreadable_database),
        (dataset.queries, result.unreadable_queries),
    ):
        for image in images:
            say_skipped(str(split.folder / image.path), image.reason)
    print(evaluation_table(result))
    if outputs.results:
        write_document(evaluation_document(result, provenance(device)), outputs.results)
    if outputs.predictions:
        for note in write_predictions(result, outputs.predictions):
            say(note)


def _read(
    data: Path, layout: str, protocol: "Protocol", queries_limit: int | None, outputs: _Outputs
) -> "PlaceDataset":
    from vpr_dhe.datasets import read_places
    from vpr_dhe.errors import BadInputError

    dataset = read_places(data, layout, protocol)
    if dataset.positives is None and outputs.predictions is None and outputs.report is None:
        raise BadInputError(
            f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; "
            "give --predictions FOLDER to write the file to submit, or --report FILE to look at matches"
        )
    return dataset if queries_limit is None else dataset.limited(queries_limit)


def _require_about_pairs(protocol: "Protocol", settings: "Settings", features: _Features, outputs: _Outputs) -> None:
    """Raise where something was chosen that image pairs have no use for."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.evaluation.runs import Settings

    stored = replace(features, model=None, device=Device.auto)
    if protocol.chosen or settings != Settings() or stored != _Features() or outputs.predictions or outputs.report:
        raise BadInputError(
            "DATA holds image pairs, and of the options only --layout, --verifier, --weights, --model, --device, "
            "--queries-limit and --out are about pairs; leave the others out"
        )


def _evaluate_pairs(
    data: Path, layout: str, methods: _Methods, features: _Features, limit: int | None, outputs: _Outputs
) -> None:
    """Corner errors of one or several methods on image pairs with known homographies."""
    from vpr_dhe.datasets.pairs import read_pairs
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.evaluation.pair_runs import SPARSE, evaluate_pairs
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.report.tables.evaluation import write_document
    from vpr_dhe.report.tables.pairs import alignment_document, alignment_table
    from vpr_dhe.verification.build import build_aligner
    from vpr_dhe.verification.names import NO_VERIFIER

    if NO_VERIFIER in methods.names:
        raise BadInputError(f"the verifier {NO_VERIFIER!r} aligns nothing; name a method to measure image pairs by")
    pairs = read_pairs(data, layout)
    pairs = pairs if limit is None else pairs.limited(limit)
    device = pick_device(features.device)
    networks = load_networks(methods.weights)
    aligners = {name: build_aligner(name, features.model, networks, device) for name in methods.names}
    with progress_bar(len(pairs.pairs), "pairs", "pair") as bar:
        result = evaluate_pairs(pairs, aligners, features=features.model or SPARSE, progress=bar.update)
    print(alignment_table(result))
    if outputs.results:
        write_document(alignment_document(result, provenance(device)), outputs.results)
