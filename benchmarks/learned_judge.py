"""Gain of networks on all matches of a candidate over the ranking by evidence.

    OMP_NUM_THREADS=1 python benchmarks/learned_judge.py FOLDER --frame-tolerance thumbs_gardens_point=2

verifies the 24 most likely candidates of all queries by `magsac`, and learns a network on the matches of each:
positions, similarity, and residual under the homography, compared with the other matches of the pair (attentive context
normalisation, as in Sun et al., "ACNe", CVPR 2020). Two designs start as the ranking by evidence:

- `weights`: the network weighs each inlier, beyond the square of its similarity;
- `verdict`: it adds a logit of the pooled matches, too: whether both images show one place.

Both are learned by the list-wise cross-entropy of the right candidates (Cao et al., "Learning to rank", ICML 2007), on
the scenes for training of `learned_ranking.py` and on generated streets of look-alike fronts, cut from photos. In an
ablation, the layers do not get positions, similarities or residuals (inliers and the squares of their similarities
remain), or the loss is the cross-entropy of each candidate alone. The last row is of one training on four fifths of the
places of all measured sets, which ranks the rest; the others are means of several trainings. Writes
`benchmarks/results/learned_judge.md`, or `learned_judge_MODEL.md` for another model than the default one.
"""

import argparse
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from data_sets import add_tolerances
from jaxtyping import Float
from judge_network import NOT_THERE, Design, Judge, Shortlists, scores_of
from learned_ranking import RecordingVerifier, first_is_right, measured_sets, training_sets
from measuring import RESULTS, folder_for, table
from significance import mean_of_sets, place_numbers, standard_error
from splits import written_once
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import UNIT, homographies_between_inputs, resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.listing import list_images
from vpr_dhe.index.map_adaptation import verified_pairs
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.ranking import make_shortlist, similarity_weight
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.localization.robust_scores import robust_z_scores
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Features, Frame, Matches, Verification
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town

RETRIEVED, SHORTLIST, MATCHES = 100, 24, 128
TOWNS, TOWN_QUERIES, TOWN_STREETS, TOWN_FRONTS, TOWN_SHIFT_M = range(4000, 4003), 250, 8, 2, 6.0
STEPS, LISTS, LEARNING_RATE, WEIGHT_DECAY, WARMUP = 200, 24, 2e-3, 1e-2, 20
_FAR = 9.0
_TOKEN = 8


def read_shortlists(dataset: PlaceDataset, extractor: Extractor, cache: Path) -> Shortlists:
    """Retrieve, select and verify the candidates of all queries, in an index that is adapted as by default."""
    index = FeatureCache(cache).index(dataset.database, extractor)
    index.unadapt()
    index.adapt(verified_pairs)
    row_of = {index.find(record.path): row for row, record in enumerate(dataset.database.records)}
    verifier = RecordingVerifier(shortlist_size=SHORTLIST)
    pinned = PinnedIndex(index.snapshot, verifier)
    weight, rows = similarity_weight(pinned.adaptation), list[dict[str, np.ndarray]]()
    for number, query in enumerate(FeatureCache(cache).queries(dataset.queries, extractor)):
        assert isinstance(query, Features)
        assert dataset.positives is not None
        candidates = sorted(retrieve(pinned, query, RETRIEVED), key=lambda one: (-one.similarity, row_of[one.id]))
        contrasts = robust_z_scores([one.similarity for one in candidates], 0.01)
        contrast_of = dict(zip((one.id for one in candidates), contrasts.tolist(), strict=True))
        shortlist, _ = make_shortlist(pinned, query, candidates, weight)
        verified = pinned.verify(_no_image, query, [one.id for one in shortlist])
        columns = {
            "tokens": np.zeros((SHORTLIST, MATCHES, _TOKEN), np.float16),
            "there": np.zeros((SHORTLIST, MATCHES), bool),
            "inliers": np.zeros(SHORTLIST, np.float32),
            "similarity": np.zeros(SHORTLIST, np.float32),
            "right": np.zeros(SHORTLIST, bool),
            "present": np.zeros(SHORTLIST, bool),
        }
        for place, (one, view) in enumerate(zip(shortlist, verifier.views, strict=True)):
            found = tokens_of(view.matches, verified[one.id], query.frame, view.frame)
            columns["tokens"][place, : len(found)], columns["there"][place, : len(found)] = found, True
            columns["inliers"][place] = verified[one.id].inliers
            columns["similarity"][place] = weight * contrast_of[one.id]
            columns["right"][place] = row_of[one.id] in dataset.positives[number]
            columns["present"][place] = True
        rows.append(columns)
    stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    queries = tuple(record.path for record in dataset.queries.records)
    return Shortlists(dataset.name.removesuffix(", held-out scenes"), queries, **stacked)


def tokens_of(
    matches: Matches, verification: Verification, query: Frame, candidate: Frame
) -> Float[np.ndarray, "matches 8"]:
    """Tokens of a candidate, at most `MATCHES`, evenly spread; without a homography all are far from it."""
    a = project(resizing(query.input_size, UNIT), matches.query_points).numpy()
    b = project(resizing(candidate.input_size, UNIT), matches.candidate_points).numpy()
    apart = np.full((len(a), 2), _FAR)
    if verification.homography is not None:
        matrix = torch.from_numpy(verification.homography)[None]
        there = project(homographies_between_inputs(matrix, query, [candidate])[0], matches.query_points)
        apart = ((there - matches.candidate_points) / matches.tolerance_px).numpy()
    off = np.linalg.norm(apart, axis=1, keepdims=True)
    similarity = matches.similarity.double().numpy()[:, None]
    tokens = np.concatenate([a, b, similarity, off.clip(max=_FAR), apart.clip(-_FAR, _FAR)], axis=1)
    if len(tokens) <= MATCHES:
        return tokens
    inliers_first = np.argsort(off[:, 0] >= 1, kind="stable")
    return tokens[inliers_first[np.linspace(0, len(tokens) - 1, MATCHES).round().astype(int)]]


def _no_image() -> np.ndarray:
    raise LookupError("these views have matches but no images")


Loss = Callable[[Judge, Shortlists], Float[Tensor, " queries"]]


def listwise_loss(judge: Judge, one: Shortlists) -> Float[Tensor, " queries"]:
    """Cross-entropy of the right candidates among all."""
    scores = judge(one) * judge.temperature.exp()
    return scores.logsumexp(dim=1) - scores.masked_fill(~one.right, NOT_THERE).logsumexp(dim=1)


def candidate_loss(judge: Judge, one: Shortlists) -> Float[Tensor, " queries"]:
    """Mean cross-entropy of each candidate alone, right ones weighing as much as wrong ones."""
    logits = judge(one) * judge.temperature.exp() - judge.threshold
    losses = binary_cross_entropy_with_logits(logits, one.right.float(), reduction="none")
    groups = (one.right, one.present & ~one.right)
    means = [(losses * some).sum(dim=1) / some.sum(dim=1).clamp(min=1) for some in groups]
    return (means[0] + means[1]) / 2


DESIGNS: dict[str, tuple[Design, Loss]] = {
    "weights": (Design(), listwise_loss),
    "weights, without positions": (Design(unseen="positions"), listwise_loss),
    "weights, without similarity": (Design(unseen="similarity"), listwise_loss),
    "weights, without residuals": (Design(unseen="residuals"), listwise_loss),
    "weights and verdict": (Design(verdict=True), listwise_loss),
    "weights and verdict, by candidate": (Design(verdict=True), candidate_loss),
}


def learn(
    sets: Sequence[Shortlists], rows: Sequence[np.ndarray], seed: int, judge: Judge, loss: Loss = listwise_loss
) -> Judge:
    """Train on some queries of each set, those with right and wrong candidates, drawn by the root of their number."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    usable = [found[_informative(one)[found]] for one, found in zip(sets, rows, strict=True)]
    shares = np.sqrt([len(found) for found in usable])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            rising, falling = min(1, (step + 1) / WARMUP), 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
            group["lr"] = LEARNING_RATE * rising * falling
        losses = list[Tensor]()
        for one, found, count in zip(sets, usable, random.multinomial(LISTS, shares / shares.sum()), strict=True):
            if count:
                drawn = one.chosen(torch.from_numpy(random.choice(found, count)))
                losses.append(loss(judge, _varied(drawn, generator)))
        optimizer.zero_grad()
        (torch.cat(losses).sum() / LISTS).backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
    return judge.eval()


def _informative(one: Shortlists) -> np.ndarray:
    return (one.right.any(dim=1) & (one.present & ~one.right).any(dim=1)).numpy()


def _varied(one: Shortlists, generator: torch.Generator) -> Shortlists:
    """Mirror half of the lists, and drop up to two fifths of the matches."""
    tokens, there = one.tokens.clone(), one.there
    mirrored = torch.rand(len(tokens), generator=generator) < 0.5
    for column in (0, 2):
        tokens[mirrored, :, :, column] = 1 - tokens[mirrored, :, :, column]
    tokens[mirrored, :, :, 6] *= -1
    dropped = 0.4 * torch.rand(len(there), 1, 1, generator=generator)
    there = there & (torch.rand(there.shape, generator=generator) >= dropped)
    return Shortlists(one.name, one.queries, tokens, there, one.inliers, one.similarity, one.right, one.present)


Scores = Mapping[str, Float[np.ndarray, "queries candidates"]]


def trained(training: Sequence[Shortlists], seed: int, design: Design, loss: Loss = listwise_loss) -> Judge:
    """Train a judge of a seed on all queries of some sets."""
    torch.manual_seed(seed)
    everything = [np.arange(len(one.present)) for one in training]
    return learn(training, everything, seed, Judge(design), loss)


def in_domain(measured: Sequence[Shortlists], seed: int) -> Scores:
    """Scores of each fifth of the places by what was learned on the others, of all measured sets at once."""
    folds = [place_numbers(one.queries) % 5 for one in measured]
    scores = {one.name: np.zeros(one.present.shape) for one in measured}
    for part in range(5):
        torch.manual_seed(seed)
        judge = learn(measured, [np.flatnonzero(fold != part) for fold in folds], seed, Judge(Design(verdict=True)))
        for one, fold in zip(measured, folds, strict=True):
            scores[one.name][fold == part] = scores_of(judge, one)[fold == part]
    return scores


def row_of(name: str, measured: Sequence[Shortlists], runs: Sequence[Scores], base: Scores) -> list[str]:
    """R@1 and gain of each set, in the mean of all runs, and the mean gain with its error and its range over runs."""
    cells, gains, errors, by_run = list[str](), list[float](), list[float](), np.zeros(len(runs))
    for one in measured:
        right, present = one.right.numpy(), one.present.numpy()
        before = first_is_right(right, present, base[one.name])
        after = np.stack([first_is_right(right, present, run[one.name]) for run in runs])
        differences = 100 * (after - before)
        gain, error = differences.mean(), standard_error(differences.mean(axis=0), place_numbers(one.queries))
        cells.append(f"{100 * after.mean():.1f} ({gain:+.1f} ± {error:.1f})")
        gains.append(float(gain))
        errors.append(error)
        by_run += differences.mean(axis=1) / len(measured)
    spread = f"{by_run.min():+.1f} to {by_run.max():+.1f}" if len(runs) > 1 else ""
    mean, error = mean_of_sets(gains, errors)
    return [name, *cells, f"{mean:+.2f} ± {error:.2f}", spread]


def lookalike_towns(photos: Path, work: Path) -> Iterator[PlaceDataset]:
    """Towns whose fronts are all cut from two photos, asked for from up to 6 m off."""
    paths = [photos / path for path in list_images(photos)]
    for seed in TOWNS:
        yield written_once(work / f"lookalike-{seed}", partial(_write_lookalikes, seed, paths))


def _write_lookalikes(seed: int, photos: Sequence[Path], folder: Path) -> None:
    chosen = np.random.default_rng(seed).choice(len(photos), TOWN_FRONTS, replace=False)
    town = SyntheticTown(seed, TOWN_STREETS, [photos[number] for number in chosen])
    database = town.database_cameras()
    write_town(folder, town, database, town.query_cameras(TOWN_QUERIES, seed, database, TOWN_SHIFT_M), seed=seed)


def read_all(
    folder: Path, model: str, tolerances: Mapping[str, int], cache: Path
) -> tuple[list[Shortlists], list[Shortlists]]:
    """Shortlists of the sets to learn from and of those to measure on, kept in `cache`."""
    extractor = load_extractor(model)

    def shortlists(dataset: PlaceDataset) -> Shortlists:
        name = re.sub(r"[^a-z0-9]+", "-", f"{extractor.spec.fingerprint[:12]} {dataset.name}".lower())
        file = cache / f"shortlists-{name}.pt"
        if not file.exists():
            torch.save(asdict(read_shortlists(dataset, extractor, cache)), file)
        found = Shortlists(**torch.load(file))
        first = first_is_right(found.right.numpy(), found.present.numpy(), scores_of(Judge(Design()), found))
        print(f"{dataset.name}: {len(first)} queries, evidence ranks {100 * first.mean():.1f} % right", flush=True)
        return found

    training = [*map(shortlists, training_sets(folder, cache))]
    training += map(shortlists, lookalike_towns(folder / "train_open" / "facades", cache))
    return training, [*map(shortlists, measured_sets(folder, dict(tolerances)))]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Options of the scripts that train judges."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=LITE_VLAD)
    parser.add_argument("--runs", type=int, default=5, help="trainings of each row [5]")
    add_tolerances(parser)
    parser.add_argument("--cache", type=Path, help="folder of features and rendered towns, kept between runs")
    return parser


def main() -> None:
    """Measure, print and write."""
    parser = parser_of(__doc__)
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS), help="rows [all]")
    options = parser.parse_args()
    with folder_for(options.cache) as cache:
        training, measured = read_all(options.folder, options.model, dict(options.frame_tolerance), cache)
    base = {one.name: scores_of(Judge(Design()).eval(), one) for one in measured}
    header = ("ranked by", *(one.name for one in measured), "mean gain ± error over places", "of single trainings")
    rows = [row_of("evidence", measured, [base], base)]
    for name in options.designs:
        design, loss = DESIGNS[name]
        judges = [trained(training, seed, design, loss) for seed in range(options.runs)]
        runs = [{one.name: scores_of(judge, one) for one in measured} for judge in judges]
        rows.append(row_of(name, measured, runs, base))
        print(rows[-1], flush=True)
    rows.append(row_of("weights and verdict, in domain", measured, [in_domain(measured, 0)], base))
    text = table(header, rows)
    print(text)
    of_model = "" if options.model == LITE_VLAD else f"_{options.model.replace('-', '_')}"
    (RESULTS / f"learned_judge{of_model}.md").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
