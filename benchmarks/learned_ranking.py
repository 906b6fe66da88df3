"""Gain of learning to rank, and of further planes, over the ranking by evidence.

    python benchmarks/learned_ranking.py FOLDER --frame-tolerance thumbs_gardens_point=2

verifies the candidates of all queries by `magsac`, describes each by statistics of its matches and of the list, and
learns a linear score on scenes for training alone: the walks and panoramas of `splits.toml` that are not held out,
single photos whose queries are the same photos in another light, and generated towns. The list-wise loss is the
cross-entropy of the right candidates, as in Cao et al., "Learning to rank", ICML 2007. Held-out scenes and the sets of
FOLDER measure it: R@1 and, paired with the ranking by evidence, the gain with its standard error over places.
A last row learns on four fifths of the places of each measured set and ranks the rest: what a score of these statistics
could reach. Writes `benchmarks/results/learned_ranking.md`.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from data_sets import add_tolerances, find_places
from jaxtyping import Bool, Float32, Float64
from measuring import RESULTS, folder_for, table
from significance import mean_of_sets, place_numbers, standard_error
from splits import read_rules, read_split_of, render

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.datasets.augmentation import in_other_light
from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import UNIT, homographies_between_inputs, resizing
from vpr_dhe.geometry.homography import project, reprojection_errors
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.listing import list_images
from vpr_dhe.index.map_adaptation import verified_pairs
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.ranking import similarity_weight, weighted_inliers
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.localization.robust_scores import inlier_contrasts, robust_z_scores
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Frame, Image, ImageRecord, Matches, Verification
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import MIN_MATCHES, View
from vpr_dhe.verification.verifier import Verifier

COUNTS = ("inliers", "close inliers", "loose inliers", "matches", "query area", "candidate area", "lower", "unmoved")
STATISTICS = (*COUNTS, "similarity", "best similarities", "magnification", "reduction", "anisotropy")
CONTEXT = ("similarity contrast", "similarity gap", "log rank")
MAX_PLANES = 3
TRAINING_TOWNS = range(2000, 2002)
TRAINING_QUERIES = 300
TOWN_QUERIES = 150
# Sides of thumbnails up to those of street views.
_PHOTO_SIDES_PX = (97, 128, 200, 340)
_AREA_CELLS = 6
_UNMOVED = 0.15
_BEST = 20
_STEPS, _LISTS_PER_STEP, _LEARNING_RATE, _WEIGHT_DECAY, _RUNS = 500, 128, 1e-2, 0.3, 3
_NOT_THERE = -1e9


@dataclass(frozen=True)
class CandidateLists:
    """Candidates of all queries of a data set, padded to one length.

    `planes` are the inliers of one homography, of two and of three; `evidence` orders as the package does.
    """

    queries: tuple[str, ...]
    statistics: Float32[np.ndarray, "queries candidates statistics"]
    evidence: Float64[np.ndarray, "queries candidates"]
    similarity: Float64[np.ndarray, "queries candidates"]
    planes: Float64[np.ndarray, "queries candidates planes"]
    right: Bool[np.ndarray, "queries candidates"]
    present: Bool[np.ndarray, "queries candidates"]
    similarity_weight: float


class RecordingVerifier(Verifier):
    """`magsac` that keeps the matches of the last query."""

    def __init__(self, shortlist_size: int) -> None:
        super().__init__(build_estimator("magsac"), shortlist_size=shortlist_size)
        self.views: list[View] = []

    def verify(self, query: View, candidates: Sequence[View]) -> list[Verification]:
        """Verify, and keep the views."""
        self.views = list(candidates)
        return super().verify(query, candidates)


def statistics_of(matches: Matches, verification: Verification, query: Frame, candidate: Frame) -> list[float]:
    """Statistics of one candidate, in the order of `STATISTICS`; zeros without a homography."""
    if verification.homography is None or len(matches.similarity) < MIN_MATCHES:
        return [0.0] * len(STATISTICS)
    matrix = torch.from_numpy(verification.homography)
    in_input = homographies_between_inputs(matrix[None], query, [candidate])[0]
    errors = reprojection_errors(in_input, matches.query_points, matches.candidate_points).numpy()
    off = errors / matches.tolerance_px
    a = project(resizing(query.input_size, UNIT), matches.query_points).numpy()
    b = project(resizing(candidate.input_size, UNIT), matches.candidate_points).numpy()
    similarity, inlier = matches.similarity.double().numpy(), off < 1
    in_unit = (resizing(candidate.input_size, UNIT) @ in_input @ resizing(UNIT, query.input_size)).numpy()
    scale = in_unit[2, 2] if abs(in_unit[2, 2]) > 1e-9 else 1e-9
    large, small = np.log(np.clip(np.linalg.svd(in_unit[:2, :2] / scale)[1], 1e-3, 1e3))
    counts = (
        inlier.sum(),
        (off < 0.5).sum(),
        (off < 2).sum(),
        len(off),
        _area(a[inlier]),
        _area(b[inlier]),
        (inlier & (a[:, 1] > 0.5)).sum(),
        (np.linalg.norm(a - b, axis=1) < _UNMOVED).sum(),
    )
    best = np.sort(similarity)[-_BEST:].mean()
    return [*np.sqrt(counts), similarity.mean(), best, abs(large), abs(small), large - small]


def _area(points: Float64[np.ndarray, "points 2"]) -> int:
    return len(np.unique((points * _AREA_CELLS).astype(int), axis=0))


def in_context(
    rows: Float64[np.ndarray, "candidates _"], similarities: Float64[np.ndarray, " candidates"]
) -> np.ndarray:
    """Compare the statistics of all candidates of a query: robust z-scores, differences to the mean, and `CONTEXT`."""
    floors = [0.3] * len(COUNTS) + [1e-3] * (len(STATISTICS) - len(COUNTS))
    contrasts = [robust_z_scores(column, floor).clip(-4, 12) for column, floor in zip(rows.T, floors, strict=True)]
    gap, rank = 20 * (similarities - similarities.max()), -np.log1p(np.arange(len(rows)))
    own = np.stack([robust_z_scores(similarities, 0.01), gap, rank], axis=1)
    return np.concatenate([np.stack(contrasts, axis=1), rows - rows.mean(axis=0), own], axis=1)


def plane_inliers(matches: Matches) -> list[int]:
    """Inliers of up to `MAX_PLANES` homographies, each of the matches that those before do not explain."""
    a, b, counts = matches.query_points.numpy(), matches.candidate_points.numpy(), []
    while len(counts) < MAX_PLANES:
        cv2.setRNGSeed(0)
        found = (
            cv2.findHomography(a, b, cv2.USAC_MAGSAC, matches.tolerance_px, maxIters=1000)[0] if len(a) >= 4 else None
        )
        if found is None:
            return counts + [0] * (MAX_PLANES - len(counts))
        errors = reprojection_errors(torch.from_numpy(found), torch.from_numpy(a), torch.from_numpy(b)).numpy()
        apart = ~(errors < matches.tolerance_px)
        counts.append(int((~apart).sum()))
        a, b = a[apart], b[apart]
    return counts


def read_lists(dataset: PlaceDataset, extractor: Extractor, cache: Path, count: int, *, planes: bool) -> CandidateLists:
    """Retrieve and verify the candidates of all queries, in an index that is adapted as by default."""
    index = FeatureCache(cache).index(dataset.database, extractor)
    index.unadapt()
    index.adapt(verified_pairs)
    row_of = {index.find(record.path): row for row, record in enumerate(dataset.database.records)}
    verifier = RecordingVerifier(count)
    pinned = PinnedIndex(index.snapshot, verifier)
    weight = similarity_weight(pinned.adaptation)
    rows: list[dict[str, np.ndarray]] = []
    for record, positives in zip(dataset.queries.records, dataset.positives or (), strict=True):
        image = decode_image(dataset.queries.folder / record.path)
        query = extractor.extract([image])[0]
        candidates = sorted(retrieve(pinned, query, count), key=lambda one: (-one.similarity, row_of[one.id]))
        verified = pinned.verify(image, query, [one.id for one in candidates])
        of_views = zip(verifier.views, (verified[one.id] for one in candidates), strict=True)
        statistics = np.array([statistics_of(view.matches, one, query.frame, view.frame) for view, one in of_views])
        similarities = np.array([one.similarity for one in candidates])
        contrast = robust_z_scores(similarities, 0.01)
        evidence = inlier_contrasts(weighted_inliers([verified[one.id] for one in candidates])) + weight * contrast
        rows.append(
            {
                "statistics": in_context(statistics, similarities).astype(np.float32),
                "evidence": evidence,
                "similarity": contrast,
                "planes": np.cumsum([plane_inliers(view.matches) for view in verifier.views], axis=1, dtype=float)
                if planes
                else np.zeros((len(candidates), MAX_PLANES)),
                "right": np.isin([row_of[one.id] for one in candidates], positives),
                "present": np.ones(len(candidates), bool),
            }
        )
    columns = {name: _padded([row[name] for row in rows], count) for name in rows[0]}
    return CandidateLists(tuple(record.path for record in dataset.queries.records), **columns, similarity_weight=weight)


def _padded(rows: Sequence[np.ndarray], count: int) -> np.ndarray:
    whole = np.zeros((len(rows), count, *rows[0].shape[1:]), rows[0].dtype)
    for target, row in zip(whole, rows, strict=True):
        target[: len(row)] = row
    return whole


Score = Callable[[CandidateLists], Float64[np.ndarray, "queries candidates"]]


def learn(
    lists: Sequence[CandidateLists], chosen: Sequence[np.ndarray] | None = None, columns: Sequence[int] | None = None
) -> Score:
    """Learn a linear score by list-wise cross-entropy; the mean of `_RUNS` runs.

    Args:
        lists: of the training sets.
        chosen: queries of each that are used; by default all.
        columns: statistics that are used; by default all.
    """
    which = [np.arange(len(one.queries)) for one in lists] if chosen is None else chosen
    used = slice(None) if columns is None else list(columns)
    x, right, present = (
        torch.from_numpy(np.concatenate([getattr(one, name)[rows] for one, rows in zip(lists, which, strict=True)]))
        for name in ("statistics", "right", "present")
    )
    x = x[..., used]
    mean, deviation = x[present].mean(dim=0), x[present].std(dim=0) + 1e-6
    informative = right.any(dim=1)
    x, right, present = (x[informative] - mean) / deviation, right[informative], present[informative]
    weights = torch.stack([_descend(x, right, present, seed) for seed in range(_RUNS)]).mean(dim=0)
    return lambda one: ((torch.from_numpy(one.statistics[..., used]) - mean) / deviation @ weights).double().numpy()


def _descend(x: torch.Tensor, right: torch.Tensor, present: torch.Tensor, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    weights = torch.zeros(x.shape[2], requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for _ in range(_STEPS):
        drawn = torch.randint(len(x), (_LISTS_PER_STEP,))
        scores = (x[drawn] @ weights).masked_fill(~present[drawn], _NOT_THERE)
        loss = scores.logsumexp(dim=1) - scores.masked_fill(~right[drawn], _NOT_THERE).logsumexp(dim=1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return weights.detach()


def in_domain(one: CandidateLists) -> Score:
    """Score each fifth of the places by what was learned on the others."""
    fold = place_numbers(one.queries) % 5
    scores = np.zeros(one.right.shape)
    for part in range(5):
        scores[fold == part] = learn([one], [np.flatnonzero(fold != part)])(one)[fold == part]
    return lambda _: scores


def by_planes(count: int) -> Score:
    """Rank by evidence of the inliers of `count` planes."""

    def score(one: CandidateLists) -> Float64[np.ndarray, "queries candidates"]:
        inliers = [inlier_contrasts(row[..., count - 1].tolist()) for row in one.planes]
        return np.stack(inliers) + one.similarity_weight * one.similarity

    return score


def hits(one: CandidateLists, scores: Float64[np.ndarray, "queries candidates"]) -> Float64[np.ndarray, " queries"]:
    """Whether the first candidate of each query is right."""
    return first_is_right(one.right, one.present, scores)


def first_is_right(
    right: Bool[np.ndarray, "queries candidates"],
    present: Bool[np.ndarray, "queries candidates"],
    scores: Float64[np.ndarray, "queries candidates"],
) -> Float64[np.ndarray, " queries"]:
    """Whether the present candidate of the highest score of each query is right."""
    first = np.where(present, scores, -np.inf).argmax(axis=1)
    return right[np.arange(len(first)), first].astype(np.float64)


def compared(one: CandidateLists, score: Score) -> tuple[float, float, float]:
    """R@1 in percent, the gain over evidence in points, and its standard error over places."""
    first, second = hits(one, one.evidence), hits(one, score(one))
    gains = 100 * (second - first)
    return 100 * float(second.mean()), float(gains.mean()), standard_error(gains, place_numbers(one.queries))


def training_sets(data: Path, work: Path) -> Iterator[PlaceDataset]:
    """Scenes for training: those of `splits.toml`, photos in another light, and towns."""
    for name, rule in read_rules().items():
        found = None if name == "synthetic_town" else read_split_of(name, rule, data, held_out=False)
        if found is not None:
            yield found.limited(TRAINING_QUERIES)
    yield photos_in_other_light(data / "train_open", work / "photos").limited(TRAINING_QUERIES)
    for seed in TRAINING_TOWNS:
        yield render(work / f"town-{seed}", seed, TOWN_QUERIES)


def photos_in_other_light(data: Path, folder: Path) -> PlaceDataset:
    """Each photo of `facades`, `aerial_open`, `opensfm` and `brighton_beach` in two lights, small or large."""
    random = np.random.default_rng(0)
    names = [name for name in ("facades", "aerial_open", "opensfm", "brighton_beach") if (data / name).is_dir()]
    paths = [data / name / path for name in names for path in list_images(data / name)]
    for side in ("database", "queries"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        photo = _shrunk(decode_image(path), int(random.choice(_PHOTO_SIDES_PX)))
        for side, views in (("database", relit(photo, random, 1)), ("queries", relit(photo, random, 3))):
            cv2.imwrite(str(folder / side / f"{number:04d}.png"), views[..., ::-1])
    records = tuple(ImageRecord(f"{number:04d}.png") for number in range(len(paths)))
    positives = tuple(np.array([number]) for number in range(len(paths)))
    database, queries = (PlaceSplit(folder / side, records) for side in ("database", "queries"))
    return PlaceDataset("photos in another light", "the same photo", database, queries, positives)


def relit(photo: Image, random: np.random.Generator, times: int) -> Image:
    """Change the light of a photo several times over, with bright and dark regions."""
    height, width = photo.shape[:2]
    pixels = photo.astype(np.float32) / 255
    for _ in range(times):
        coarse = random.normal(0, 0.4, (random.integers(2, 6),) * 2).astype(np.float32)
        regions = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        pixels = in_other_light(np.clip(pixels * np.exp(regions)[..., None], 0, 1), random)
    return np.rint(255 * pixels).astype(np.uint8)


def _shrunk(photo: Image, side_px: int) -> Image:
    scale = side_px / max(photo.shape[:2])
    return np.asarray(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def measured_sets(data: Path, tolerances: Mapping[str, int]) -> Iterator[PlaceDataset]:
    """Place data sets of the folder, by their first protocol, and the held-out scenes."""
    rules = ((name, rule) for name, rule in read_rules().items() if name != "synthetic_town")
    scenes = (read_split_of(name, rule, data, held_out=True) for name, rule in rules)
    yield from chain((protocols[0] for protocols in find_places(data, tolerances)), filter(None, scenes))


def report(measured: Mapping[str, CandidateLists], scores: Mapping[str, Score]) -> str:
    """Format R@1 and the paired gain of each score on each set, with the mean over the sets."""
    lines = []
    for name, score in scores.items():
        found = [compared(one, score) for one in measured.values()]
        mean, error = mean_of_sets([gain for _, gain, _ in found], [error for *_, error in found])
        cells = (f"{recall:.1f} ({gain:+.1f} ± {spread:.1f})" for recall, gain, spread in found)
        lines.append([name, *cells, f"{mean:+.2f} ± {error:.2f}"])
    return table(("ranked by", *measured, "mean gain"), lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=LITE_VLAD)
    parser.add_argument("--rerank", type=int, default=100, help="candidates per query [100]")
    add_tolerances(parser)
    parser.add_argument("--cache", type=Path, help="folder of features and rendered towns, kept between runs")
    options = parser.parse_args()
    extractor = load_extractor(options.model)
    with folder_for(options.cache) as cache:

        def lists(dataset: PlaceDataset, *, planes: bool) -> CandidateLists:
            print(dataset.name, flush=True)
            return read_lists(dataset, extractor, cache, options.rerank, planes=planes)

        learned_on = [lists(dataset, planes=False) for dataset in training_sets(options.folder, cache)]
        measured = {
            dataset.name.removesuffix(", held-out scenes"): lists(dataset, planes=True)
            for dataset in measured_sets(options.folder, dict(options.frame_tolerance))
        }
    alone = range(2 * len(STATISTICS), 2 * len(STATISTICS) + len(CONTEXT))
    inliers = [0, len(STATISTICS), *alone]
    z_scores = [*range(len(STATISTICS)), *alone]
    scores: dict[str, Score] = {
        "evidence": lambda one: one.evidence,
        "inliers of two planes, evidence": by_planes(2),
        "inliers of three planes, evidence": by_planes(3),
        "learned, all statistics": learn(learned_on),
        "learned, inliers and similarity": learn(learned_on, columns=inliers),
        "learned, z-scores alone": learn(learned_on, columns=z_scores),
        "learned on the set itself": lambda one: in_domain(one)(one),
    }
    text = report(measured, scores)
    print(text)
    (RESULTS / "learned_ranking.md").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
