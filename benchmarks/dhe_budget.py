"""Corner error of heads of `dhe` against training time, for grids of fewer cells, and for that of the published one.

    OMP_NUM_THREADS=1 python benchmarks/dhe_budget.py DATA/train_open/facades DATA/train_open/hdri_views

The published network is trained from nothing on warps of photos, whose homographies are known, and measured on warps of
others: the last tenth of each folder. Its transformers see as many tokens of as many numbers as the grid has cells.
Maps of other grids are those of the model, resampled. The head of 24 x 24 cells learns at the published rate, the
smaller ones at five times that. Pairs are extracted in rounds and used several times; the time is that of the processor
for the steps alone. Corner errors are medians, in pixels of 384. Writes `benchmarks/results/dhe_budget.md` and
`dhe_budget.json`.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from measuring import RESULTS, table, write_result
from torch import Tensor
from torch.nn import functional

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.listing import list_images
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Grid
from vpr_dhe.training.dhe.corner_error import corner_error_loss
from vpr_dhe.training.dhe.predicted import predicted_homographies
from vpr_dhe.training.dhe.stage import new_head
from vpr_dhe.training.extracted_pairs import extract_pairs
from vpr_dhe.training.schedules import cosine_decay
from vpr_dhe.training.sources.warps import WarpedImages
from vpr_dhe.verification.estimators.dhe import INPUT_SIZE, DheHead

SIDES = (6, 12, 24)
BATCH, ROUND, EPOCHS = 16, 512, 6
LEARNING_RATES = {6: 5e-4, 12: 5e-4, 24: 1e-4}
LIMIT_PX = 100.0
VALIDATION_PAIRS = 128
_HELD_OUT_EVERY = 10
_MEASUREMENTS = 6
_SCHEDULE = 1000


class Pairs(NamedTuple):
    """Local maps of warped photos on a grid of fewer cells, and their homographies between inputs."""

    queries: Float[Tensor, "pairs cells dimension"]
    candidates: Float[Tensor, "pairs cells dimension"]
    homographies: Float64[Tensor, "pairs 3 3"]


@dataclass(frozen=True)
class Measured:
    """Median corner error of a head of side x side cells after some training."""

    side: int
    step: int
    minutes: float
    median_px: float


Draw = Callable[[int], Pairs]


def drawer(extractor: Extractor, photos: Sequence[Path], side: int, seed: int) -> Draw:
    """Function that draws so many new pairs."""
    source, random = WarpedImages(photos, INPUT_SIZE, "photos"), np.random.default_rng(seed)

    def draw(count: int) -> Pairs:
        parts = list[Pairs]()
        for _ in range(count // BATCH):
            views = [source.pair(int(random.integers(len(source))), random) for _ in range(BATCH)]
            found = extract_pairs(views, extractor, INPUT_SIZE)
            grid = extractor.spec.grid
            queries, candidates = resampled(found.query_maps, grid, side), resampled(found.candidate_maps, grid, side)
            parts.append(Pairs(queries, candidates, found.homographies))
        return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    return draw


def resampled(
    maps: Float[Tensor, "pairs cells dimension"], grid: Grid, side: int
) -> Float[Tensor, "pairs _ dimension"]:
    """Resample unit-norm maps of a grid to side x side cells of unit norm."""
    images = maps.float().mT.unflatten(2, grid)
    size, antialias = (side, side), side < grid.rows
    smaller = functional.interpolate(images, size, mode="bilinear", antialias=antialias, align_corners=False)
    return functional.normalize(smaller.flatten(2).mT, dim=2)


def batches(draw: Draw, random: np.random.Generator) -> Iterator[Pairs]:
    """Endless batches; the pairs of a round are used for some epochs."""
    while True:
        pairs = draw(ROUND)
        for _ in range(EPOCHS):
            for rows in torch.from_numpy(random.permutation(ROUND)).split(BATCH):
                yield Pairs(*(column[rows] for column in pairs))


def split_photos(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Photos of some folders to learn from, and the last tenth of each to measure on."""
    seen, unseen = list[Path](), list[Path]()
    for folder in folders:
        paths = [folder / name for name in list_images(folder)]
        kept = len(paths) - len(paths) // _HELD_OUT_EVERY  # neighbours in a folder may show one place
        seen += paths[:kept]
        unseen += paths[kept:]
    return seen, unseen


def train(head: DheHead, minutes: float, learned: Draw, validation: Pairs, seed: int) -> Iterator[Measured]:
    """Train a head, and measure it now and then."""
    side = head.grid.rows
    optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATES[side])
    spent_s, measured, done = 0.0, 0, 0.0
    yield Measured(side, 0, 0.0, median_error_px(head, validation))
    for step, pairs in enumerate(batches(learned, np.random.default_rng(seed)), start=1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATES[side] * cosine_decay(int(_SCHEDULE * done), _SCHEDULE)
        start_s = time.process_time()
        points = head(pairs.queries, pairs.candidates)
        predicted = predicted_homographies(points.query, points.candidate)
        truth = pairs.homographies[predicted.usable]
        loss = corner_error_loss(predicted.homographies, truth, INPUT_SIZE, LIMIT_PX)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent_s += time.process_time() - start_s
        done = spent_s / (60 * minutes)
        if int(_MEASUREMENTS * done) > measured:
            measured = int(_MEASUREMENTS * done)
            yield Measured(side, step, spent_s / 60, median_error_px(head, validation))
        if done >= 1:
            return


@torch.inference_mode()
def median_error_px(head: torch.nn.Module, pairs: Pairs) -> float:
    """Median corner error; predictions without a homography count as infinite."""
    points = head(pairs.queries, pairs.candidates)
    predicted = predicted_homographies(points.query, points.candidate)
    errors = torch.full((len(pairs.homographies),), torch.inf, dtype=torch.float64)
    known = pairs.homographies[predicted.usable]
    errors[predicted.usable] = mean_corner_error(predicted.homographies.double(), known, corners(INPUT_SIZE)).double()
    return float(errors.median())


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", help="folders")
    parser.add_argument("--minutes", type=float, default=8.0, help="of processor time per head [8]")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--model", default=LITE_VLAD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    extractor = load_extractor(options.model)
    seen, unseen = split_photos(options.photos)
    found = list[Measured]()
    for side in options.sides:
        validation = drawer(extractor, unseen, side, options.seed + 1)(VALIDATION_PAIRS)
        head, learned = new_head(options.seed, Grid(side, side)), drawer(extractor, seen, side, options.seed)
        for one in train(head, options.minutes, learned, validation, options.seed):
            print(f"{side} x {side}: step {one.step}, {one.minutes:.1f} min, {one.median_px:.1f} px", flush=True)
            found.append(one)
    cells = [[f"{one.median_px:.1f} ({one.step})" for one in found if one.side == side] for side in options.sides]
    rows = [[f"{side} x {side}", *row] for side, row in zip(options.sides, cells, strict=True)]
    header = ("cells", *(f"{options.minutes * part / _MEASUREMENTS:.1f} min" for part in range(_MEASUREMENTS + 1)))
    text = table(header, rows)
    print(text)
    (options.out / "dhe_budget.md").write_text(f"{text}\n")
    facts = {"model": options.model, "photos": len(seen), "unseen": len(unseen), "minutes": options.minutes}
    write_result(options.out / "dhe_budget.json", "dhe_budget", facts | {"heads": [asdict(one) for one in found]})


if __name__ == "__main__":
    main()
