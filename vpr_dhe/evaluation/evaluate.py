"""Evaluation of models and verifiers by name, as on the command line."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vpr_dhe.datasets import PlaceDataset, Protocol, read_places
from vpr_dhe.datasets.pairs import PAIR_LAYOUTS, read_pairs, recognise_pairs
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.pair_evaluation import SPARSE, PairEvaluation, evaluate_pair_set
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, Settings, Tools, evaluate_dataset
from vpr_dhe.evaluation.query_features import extract_queries
from vpr_dhe.evaluation.recall import Denominator
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.map_adaptation import adapt_opened
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.early_stop import require_margin
from vpr_dhe.localization.ranking import require_rerank
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.models.network_file import load_networks
from vpr_dhe.records import StartProgress, StrPath, without_progress
from vpr_dhe.runtime.choices import (
    AUTO,
    FP32,
    Adapt,
    Precision,
    RankBy,
    Runtime,
    default_adapt,
    default_rank_by,
    features_precision,
    require_choice,
)
from vpr_dhe.verification.alignment import build_aligners, load_resources
from vpr_dhe.verification.build import build_verifiers, require_used
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import DEFAULT_VERIFIER, NO_VERIFIER


def evaluate(
    data: StrPath,
    *,
    layout: str = AUTO,
    protocol: Protocol | None = None,
    queries_limit: int | None = None,
    model: str = DEFAULT_MODEL,
    verifiers: Sequence[str] = (DEFAULT_VERIFIER,),
    weights: Iterable[StrPath] = (),
    rerank: int = 100,
    rank_by: RankBy | None = None,
    adapt: Adapt | None = None,
    stop_early: float | None = None,
    ranks: Iterable[int] = (1, 5, 10, 20),
    denominator: str = "all",
    one_per_panorama: bool = False,
    codec: str = AUTO,
    index_type: str = AUTO,
    bit_depth: str = AUTO,
    cache: StrPath | None = None,
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: Precision = FP32,
    batch_size: int = 8,
    require_truth: bool = False,
    start_progress: StartProgress = without_progress,
    inspect: Callable[[EvaluationResult, Tools], object] = lambda _result, _tools: None,
) -> EvaluationResult:
    """Measure recall@N of a model on a place data set, by retrieval alone and re-ranked by each verifier.

    Args:
        data: folder of the data set.
        layout: of the folder, see `vpr_dhe.datasets.LAYOUTS`; `auto` recognises it.
        protocol: choices within the layout.
        queries_limit: maximum number of queries, evenly spread, for a quick look.
        model: by name, as for `load_extractor`.
        verifiers: by name; `none` stands for retrieval, which is always measured.
        weights: network files of verifiers that need one.
        rerank: number of candidates to verify per query, at least 1.
        rank_by: order of verified candidates: by inliers, or by `evidence`, which is inliers and similarity together.
            By default as `vpr-dhe index` chooses: by evidence, and by inliers for published weights.
        adapt: adapt the database to its map as far as that helps (`auto`), or search vectors as extracted (`off`). By
            default as `vpr-dhe index` chooses: `auto`, and `off` for published weights.
        stop_early: margin of an early stop, as for `Localizer`, to measure beside verifying all candidates.
        ranks: values of N, at least 1.
        denominator: recall of `all` queries, or of those `with-positive`.
        one_per_panorama: count only the best of several images cut from one panorama.
        codec: of stored local maps.
        index_type: of the search over global descriptors.
        bit_depth: grey levels of 16-bit images, as for `PlaceIndex.create`; `auto` finds them from the database.
        cache: folder that keeps features of databases and queries between runs; None keeps nothing.
        device: a torch device.
        runtime: as for `load_extractor`.
        precision: of features and of the DHE head; `int8` is of the head alone.
        batch_size: images per step of the extractor; results do not depend on it.
        require_truth: refuse data sets whose ground truth is not public.
        start_progress: called with the name and length of each stage.
        inspect: called with the result and its tools before a temporary index is removed.

    Raises:
        DatasetError: if the folder has no known layout.
        ModelError, VerifierError: if model or verifiers are unknown, or do not fit each other.
        BadInputError: if the folder holds image pairs, an argument is invalid, or no query could be read.
    """
    require_margin(stop_early)
    require_rerank(rerank)
    ascending, counted = _ranks(ranks), _denominator(denominator)
    dataset = _read(data, layout, protocol or Protocol(), queries_limit, require_truth=require_truth)
    extractor = load_extractor(model, device, precision=features_precision(precision), runtime=runtime)
    published = extractor.model_file.published
    order = rank_by or default_rank_by(published=published)
    settings = Settings(ascending, rerank, counted, one_per_panorama, order, stop_early)
    resources = Resources(extractor, load_networks(weights), device, precision)
    require_used(resources, verifiers)
    built = build_verifiers(verifiers, resources)
    with _cache_folder(cache) as folder:
        index = FeatureCache(folder).index(
            dataset.database,
            extractor,
            batch_size=batch_size,
            codec=codec,
            index_type=index_type,
            bit_depth=bit_depth,
            progress=start_progress("database", len(dataset.database.records)),
        )
        _settle_adaptation(index, adapt or default_adapt(published=published), start_progress)
        count = len(dataset.queries.records)
        levels = index.manifest.levels
        queries = extract_queries(dataset.queries, extractor, batch_size, grey_levels=levels)
        if cache is not None:
            extracting = start_progress("features of queries", count)
            queries = FeatureCache(folder).queries(
                dataset.queries,
                extractor,
                batch_size=batch_size,
                grey_levels=levels,
                progress=extracting,
            )
        progress = start_progress("queries", count)
        result = evaluate_dataset(dataset, index, extractor, built, settings, queries=queries, progress=progress)
        inspect(result, Tools(index, extractor, built))
    return result


def evaluate_pairs(
    data: StrPath,
    *,
    layout: str = AUTO,
    pairs_limit: int | None = None,
    methods: Sequence[str] = (DEFAULT_VERIFIER,),
    model: str | None = None,
    weights: Iterable[StrPath] = (),
    device: str = "cpu",
    runtime: Runtime = AUTO,
    precision: Precision = FP32,
    start_progress: StartProgress = without_progress,
) -> PairEvaluation:
    """Measure the corner errors of methods of alignment on image pairs with known homographies.

    Args:
        data: folder of the pairs.
        layout: of the folder, see `vpr_dhe.datasets.pairs.PAIR_LAYOUTS`; `auto` recognises it.
        pairs_limit: maximum number of pairs, evenly spread, for a quick look.
        methods: estimators by name.
        model: of the dense features to match; without one, sparse keypoints are matched.
        weights: network files of methods that need one.
        device: a torch device.
        runtime: as for `load_extractor`.
        precision: of features and of the DHE head; `int8` is of the head alone.
        start_progress: called with the name and length of the one stage.

    Raises:
        DatasetError: if the folder has no known layout.
        ModelError, VerifierError: if model or methods are unknown, or do not fit each other.
        ImageError: if an image is damaged.
    """
    if NO_VERIFIER in methods:
        raise BadInputError(f"{NO_VERIFIER!r} aligns no image pairs; name a method of `vpr-dhe verifiers`")
    pairs = read_pairs(data, layout)
    pairs = pairs if pairs_limit is None else pairs.limited(pairs_limit)
    resources = load_resources(model, weights, device, runtime=runtime, precision=precision)
    aligners = build_aligners(methods, resources)
    progress = start_progress("pairs", len(pairs.pairs))
    return evaluate_pair_set(pairs, aligners, features=model or SPARSE, progress=progress)


def _settle_adaptation(index: PlaceIndex, adapt: Adapt, start_progress: StartProgress) -> None:
    """Adapt the index of a database, which may be cached, or undo that."""
    require_choice(adapt, Adapt, "adapt")
    if (index.manifest.adaptation is None) == (adapt == AUTO):
        index.configure(adapt=adapt)
        adapt_opened(index, start_progress=start_progress)


def _ranks(ranks: Iterable[int]) -> tuple[int, ...]:
    ascending = tuple(sorted(set(ranks)))
    if not ascending or ascending[0] < 1:
        raise BadInputError(f"ranks are {list(ascending)}; expected whole numbers from 1")
    return ascending


def _denominator(name: str) -> Denominator:
    try:
        return Denominator(name)
    except ValueError:
        raise BadInputError(f"the denominator is {name!r}; expected {' or '.join(Denominator)}") from None


def _read(
    data: StrPath, layout: str, protocol: Protocol, queries_limit: int | None, *, require_truth: bool
) -> PlaceDataset:
    recognised = layout == AUTO and not protocol.chosen
    if layout in PAIR_LAYOUTS or (recognised and recognise_pairs(Path(data)) is not None):
        raise BadInputError(f"{data} holds image pairs, not places; use `vpr-dhe evaluate-pairs`")
    dataset = read_places(data, layout, protocol)
    if require_truth and dataset.positives is None:
        raise BadInputError(
            f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; "
            "give --predictions FOLDER to write the file to submit, or --report FILE to see the matches"
        )
    return dataset if queries_limit is None else dataset.limited(queries_limit)


@contextmanager
def _cache_folder(cache: StrPath | None) -> Generator[Path, None, None]:
    """Yield the folder of cached features: the given one, or a temporary one."""
    if cache is not None:
        yield Path(cache)
        return
    with TemporaryDirectory(prefix="vpr-dhe-") as folder:
        yield Path(folder)
