"""`vpr-dhe evaluate`: recall@N of a model and its verifiers on a data set, or corner errors on image pairs."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import (
    Device,
    parse_names,
    parse_ranks,
    pick_device,
    progress_bar,
    require_folder,
    require_writable,
    say,
    say_skipped,
)

if TYPE_CHECKING:
    from vpr_dhe.evaluation.recall import Denominator
    from vpr_dhe.places import PlaceDataset, Protocol

NAME = "evaluate"
_DEFAULT_MODEL, _DEFAULT_VERIFIER = "sift-vlad", "magsac"
_AUTO, _NONE = "auto", "none"
# What the command looks at where DATA holds image pairs.
_ABOUT_PAIRS = frozenset({"data", "layout", "verifier", "model", "queries_limit", "out"})


def run(
    data: Annotated[Path, typer.Argument(help="Data set in a layout as published, or a folder of image pairs.")],
    layout: Annotated[
        str,
        typer.Option(help="auto, vpr, msls, folders, kapture or colmap; of pairs: pairs, hpatches, aligned or warps."),
    ] = _AUTO,
    split: Annotated[str | None, typer.Option(help="train, val or test; for msls also names of cities.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="For msls: official (740 queries in val) or all (11,084).")
    ] = None,
    database: Annotated[str | None, typer.Option(help="Folder or list of the database, within DATA.")] = None,
    queries: Annotated[str | None, typer.Option(help="Folder or list of the queries, within DATA.")] = None,
    positions: Annotated[Path | None, typer.Option(help="CSV with the positions of all images.")] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="CSV or npz that says which images are right.")] = None,
    radius_m: Annotated[
        float | None, typer.Option(min=0, help="Distance in metres up to which an image is right; mostly 25.")
    ] = None,
    heading_tolerance_deg: Annotated[
        float | None, typer.Option(min=0, max=180, help="Right images must also look the same way, up to this.")
    ] = None,
    frame_tolerance: Annotated[int | None, typer.Option(min=0, help="The same in frames, without positions.")] = None,
    query_step: Annotated[int | None, typer.Option(min=1, help="With frames: ask every n-th query.")] = None,
    queries_limit: Annotated[int | None, typer.Option(min=1, help="A quick look: ask only so many queries.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name or file; see `vpr-dhe models`. [sift-vlad]")] = None,
    verifier: Annotated[
        list[str] | None, typer.Option(help="One or several verifiers, or none; see `vpr-dhe verifiers`. [magsac]")
    ] = None,
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
    cache: Annotated[
        str, typer.Option(help="Folder that keeps features of databases; auto is in ~/.cache, none keeps nothing.")
    ] = _AUTO,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Database images per step of the extractor.")] = 8,
) -> None:
    """Measure how often the right place is among the first N, and what each verifier makes of it."""
    options = dict(locals())

    from vpr_dhe.evaluation.feature_cache import FeatureCache
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.evaluation.runs import Settings, evaluate
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.localizer import build_verifiers
    from vpr_dhe.places import Protocol
    from vpr_dhe.report.evaluation import evaluation_document, evaluation_table, write_document
    from vpr_dhe.report.predictions import require_new_folder, write_predictions

    require_writable(out)
    names = parse_names(verifier or [_DEFAULT_VERIFIER])
    protocol = Protocol(
        split=split,
        radius_m=radius_m,
        heading_tolerance_deg=heading_tolerance_deg,
        frame_tolerance=frame_tolerance,
        query_step=query_step,
        variant=variant,
        database=database,
        queries=queries,
        positions=positions,
        ground_truth=ground_truth,
    )
    if _holds_pairs(data, layout):
        _require_about_pairs(options)
        _evaluate_pairs(data, layout, names, model, queries_limit, out)
        return
    settings = Settings(parse_ranks(recall_at), rerank, _denominator(denominator), one_per_panorama)
    if predictions:
        require_new_folder(predictions)
    dataset = _read(data, layout, protocol, queries_limit, predictions)
    where = pick_device(device)
    extractor = load_extractor(model or _DEFAULT_MODEL, where)
    verifiers = build_verifiers(names, extractor)
    with _cache_folder(cache) as kept:
        with progress_bar(len(dataset.database.records), "database", "image") as bar:
            index = FeatureCache(kept).index(
                dataset.database,
                extractor,
                batch_size=batch_size,
                codec=codec,
                index_type=index_type,
                progress=bar.update,
            )
        with progress_bar(len(dataset.queries.records), "queries", "image") as bar:
            result = evaluate(dataset, index, extractor, verifiers, settings, progress=bar.update)
    for image in result.unreadable:
        say_skipped(image.path, image.reason)
    print(evaluation_table(result))
    if out:
        write_document(evaluation_document(result, provenance(where)), out)
    if predictions:
        for note in write_predictions(result, predictions):
            say(note)


def _read(
    data: Path, layout: str, protocol: "Protocol", queries_limit: int | None, predictions: Path | None
) -> "PlaceDataset":
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.places import read_places

    dataset = read_places(data, layout, protocol)
    if dataset.positives is None and predictions is None:
        raise BadInputError(
            f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; "
            "give --predictions FOLDER to write the file to submit"
        )
    return dataset if queries_limit is None else dataset.limited(queries_limit)


def _denominator(name: str) -> "Denominator":
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.evaluation.recall import Denominator

    try:
        return Denominator(name)
    except ValueError:
        raise BadInputError(f"--denominator is {name!r}; expected {' or '.join(Denominator)}") from None


@contextmanager
def _cache_folder(cache: str) -> Iterator[Path]:
    """Where features of databases are kept: for good, or until the command ends."""
    if cache == _NONE:
        with TemporaryDirectory(prefix="vpr-dhe-") as folder:
            yield Path(folder)
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "vpr-dhe" / "databases" if cache == _AUTO else Path(cache)
    require_folder(folder, "--cache")
    say(f"features of databases are kept in {folder} (--cache)")
    yield folder


def _holds_pairs(data: Path, layout: str) -> bool:
    from vpr_dhe.places.pairs import PAIR_LAYOUTS, recognise_pairs

    return layout in PAIR_LAYOUTS or (layout == _AUTO and recognise_pairs(data) is not None)


def _require_about_pairs(options: Mapping[str, object]) -> None:
    """Raise where an option was chosen that image pairs have no use for."""
    from vpr_dhe.errors import BadInputError

    for name, parameter in inspect.signature(run).parameters.items():
        if name not in _ABOUT_PAIRS and options[name] != parameter.default:
            raise BadInputError(f"--{name.replace('_', '-')} is about places, and these are image pairs; leave it out")


def _evaluate_pairs(
    data: Path, layout: str, methods: Sequence[str], model: str | None, limit: int | None, out: Path | None
) -> None:
    """Corner errors of one or several methods on image pairs with known homographies."""
    from vpr_dhe.evaluation.pair_runs import evaluate_pairs
    from vpr_dhe.evaluation.provenance import provenance
    from vpr_dhe.localizer import build_aligner
    from vpr_dhe.places.pairs import read_pairs
    from vpr_dhe.report.alignment import alignment_document, alignment_table
    from vpr_dhe.report.evaluation import write_document

    pairs = read_pairs(data, layout)
    pairs = pairs if limit is None else pairs.limited(limit)
    aligners = {name: build_aligner(name, model) for name in methods}
    with progress_bar(len(pairs.pairs), "pairs", "pair") as bar:
        result = evaluate_pairs(pairs, aligners, progress=bar.update)
    print(alignment_table(result))
    if out:
        write_document(alignment_document(result, provenance()), out)
