"""Ablation of RANSAC-Flow on smoothly distorted warps: coarse stage and fine flow.

    python benchmarks/fine_flow.py PHOTOS --weights RUN/best.safetensors

takes evenly spread photos of a folder and makes pairs of 384 x 384 px as training does: the corners move by up to a
quarter of the side, and A is also distorted smoothly. Every other B is zoomed by a factor from 1/2 to 2. Writes
`benchmarks/results/fine_flow.md` and `fine_flow.json`:

- coarse: corner error of the planar part on one scale and on seven, by the robust estimators of the package and by the
  RANSAC of the paper (10,000 homographies through four matches each, on all of them at once);
- fine: end-point error of the coarse homography and of the fine flow, over all pixels of A that B shows and over those
  that the fine flow predicts as matchable.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float64
from measuring import RESULTS, table, write_result
from torch import Tensor

from vpr_dhe.evaluation.alignment_metrics import flow_of_alignment, flow_of_homography
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import UNIT, cell_centres, corners, resizing
from vpr_dhe.geometry.homography import (
    four_point_homography,
    is_usable,
    mean_corner_error,
    project,
    reprojection_errors,
)
from vpr_dhe.images.listing import list_images
from vpr_dhe.models.network_file import load_network
from vpr_dhe.records import Frame, Grid, Size
from vpr_dhe.training.ransac_flow.elastic import ElasticPairs
from vpr_dhe.training.sources.base import TrainingPair
from vpr_dhe.training.sources.warps import WarpedImages
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.estimators.poselib import PoseLibEstimator
from vpr_dhe.verification.estimators.ransac_flow import RansacFlowEstimator
from vpr_dhe.verification.estimators.ransac_flow.coarse import (
    SCALES,
    TOLERANCE,
    CoarseMatches,
    cells_of,
    extract_scales,
    match_cells,
)
from vpr_dhe.verification.estimators.ransac_flow.estimator import SURE

SIZE = Size(384, 384)
_ITERATIONS, _TRIED_AT_ONCE = 10_000, 1000
_MIN_DETERMINANT = 1e-6
Fit = Callable[[CoarseMatches], Float64[Tensor, "3 3"] | None]


def distorted_pairs(root: Path, count: int, seed: int) -> Iterator[TrainingPair]:
    """Make pairs of `count` photos of a folder, every other one zoomed."""
    names = list_images(root)
    chosen = [names[number * len(names) // count] for number in range(min(count, len(names)))]
    source = ElasticPairs(WarpedImages([root / name for name in chosen], SIZE, root.name))
    for number in range(len(chosen)):
        random = np.random.default_rng((seed, number))
        pair = source.pair(number, random)
        yield zoomed(pair, 2 ** random.uniform(-1, 1)) if number % 2 else pair


def zoomed(pair: TrainingPair, factor: float) -> TrainingPair:
    """Zoom B of a pair in or out."""
    assert pair.homography is not None
    middle = (SIZE.width - 1) / 2 * (1 - factor)
    zoom = np.array([[factor, 0, middle], [0, factor, middle], [0, 0, 1.0]])
    image = cv2.warpPerspective(pair.image_b, zoom, SIZE, borderMode=cv2.BORDER_REFLECT_101)
    return replace(pair, image_b=image.astype(np.uint8, copy=False), homography=zoom @ pair.homography)


def published_ransac(matches: CoarseMatches) -> Float64[Tensor, "3 3"] | None:
    """Estimate the homography with most inliers among 10,000 through four matches each."""
    generator = torch.Generator().manual_seed(0)
    best, most = None, 3
    for _ in range(_ITERATIONS // _TRIED_AT_ONCE):
        drawn = torch.randint(len(matches.query), (_TRIED_AT_ONCE, 4), generator=generator)
        tried = four_point_homography(matches.query[drawn], matches.candidate[drawn])
        tried = tried[is_usable(tried) & (torch.linalg.det(tried.nan_to_num()) > _MIN_DETERMINANT)]
        if len(tried):
            inliers = (reprojection_errors(tried, matches.query, matches.candidate) < TOLERANCE).sum(dim=1)
            place = int(inliers.argmax())
            if int(inliers[place]) > most:
                best, most = tried[place], int(inliers[place])
    return best


def library(estimator: OpenCvEstimator | PoseLibEstimator) -> Fit:
    """Fit a homography to coarse matches by a robust estimator."""

    def fit(matches: CoarseMatches) -> Float64[Tensor, "3 3"] | None:
        found = estimator.fit(matches.query.numpy(), matches.candidate.numpy(), TOLERANCE)
        return None if found is None else torch.from_numpy(found / found[2, 2])

    return fit


FITS: dict[str, Fit] = {
    "published RANSAC": published_ransac,
    "ransac": library(OpenCvEstimator("ransac")),
    "magsac": library(OpenCvEstimator("magsac")),
    "poselib": library(PoseLibEstimator()),
}


def coarse_errors(pair: TrainingPair, extractor: Extractor) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
    """Compute corner errors in px, infinite without an estimate, and ms of each fit, on one scale and on seven."""
    candidate = cells_of(extractor.extract([pair.image_b])[0])
    back, to = resizing(UNIT, SIZE), resizing(SIZE, UNIT)
    truth = torch.from_numpy(pair.homography)
    for scales in ((1.0,), SCALES):
        (matches,) = match_cells(extract_scales(pair.image_a, extractor, scales), [candidate])
        for name, fit in FITS.items():
            started = perf_counter()
            found = fit(matches)
            elapsed_ms = 1e3 * (perf_counter() - started)
            error = torch.inf
            if found is not None:
                estimate = back @ found @ to
                error = float(mean_corner_error(estimate / estimate[2, 2], truth, corners(SIZE)))
            yield (f"{len(scales)}", name), (error, elapsed_ms)


def true_flow(pair: TrainingPair) -> tuple[Float64[Tensor, "height width 2"], Bool[Tensor, "height width"]]:
    """Compute the flow of each pixel of A, and whether B shows it."""
    centres = cell_centres(Grid(SIZE.height, SIZE.width), SIZE).view(SIZE.height, SIZE.width, 2)
    places = project(torch.from_numpy(pair.homography), centres + torch.from_numpy(pair.residual_px))
    return places - centres, ((places >= 0) & (places <= SIZE.width - 1)).all(dim=-1)


def fine_errors(pair: TrainingPair, estimator: RansacFlowEstimator) -> dict[str, float] | None:
    """Compute end-point errors in px; None if the coarse stage fails."""
    frame = Frame(SIZE, SIZE)
    found = estimator.estimate(View(frame, lambda: pair.image_a), [View(frame, lambda: pair.image_b)])
    assert found.details is not None
    alignment = found.details[0].alignment
    if alignment is None:
        return None
    truth, shown = true_flow(pair)
    sure = shown & (torch.from_numpy(cv2.resize(alignment.matchability, SIZE)) >= SURE)
    flows = {
        "coarse": flow_of_homography(alignment.homographies[0], SIZE, SIZE).displacement_px,
        "refined homography": flow_of_homography(found.matrices[0].numpy(), SIZE, SIZE).displacement_px,
        "fine": flow_of_alignment(alignment, SIZE),
    }
    errors = {name: torch.linalg.vector_norm(flow - truth, dim=-1) for name, flow in flows.items()}
    return {
        **{f"{name}, all": float(error[shown].mean()) for name, error in errors.items()},
        **({f"{name}, sure": float(error[sure].mean()) for name, error in errors.items()} if sure.any() else {}),
        "share sure": float(sure.sum() / shown.sum()),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="network file of ransac-flow")
    parser.add_argument("--model", default="sift-vlad")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    extractor, network = load_extractor(arguments.model), load_network(arguments.weights)
    estimator = RansacFlowEstimator.from_file(network, None, "cpu")
    coarse: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    fine: list[dict[str, float]] = []
    for pair in distorted_pairs(arguments.photos, arguments.pairs, arguments.seed):
        for key, value in coarse_errors(pair, extractor):
            coarse[key].append(value)
        if (errors := fine_errors(pair, estimator)) is not None:
            fine.append(errors)
    rows = [
        [*key, f"{median(error for error, _ in found):.1f}", f"{median(ms for _, ms in found):.1f}"]
        for key, found in coarse.items()
    ]
    first = table(["scales", "estimator", "median corner error px", "ms"], rows)
    names = sorted({name for one in fine for name in one})
    measured = {name: [one[name] for one in fine if name in one] for name in names}
    rows = [
        [name, f"{fmean(values):.2f}", f"{median(values):.2f}", str(len(values))] for name, values in measured.items()
    ]
    second = table(["end-point error px", "mean", "median", "pairs"], rows)
    print(first, second, sep="\n\n")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "fine_flow.md").write_text(f"{first}\n\n{second}\n")
    document = {
        "photos": arguments.photos.resolve().name,
        "pairs": arguments.pairs,
        "seed": arguments.seed,
        "network": network.training_data,
        "coarse": {" ".join(key): found for key, found in coarse.items()},
        "fine": fine,
    }
    write_result(arguments.out / "fine_flow.json", "fine_flow", document)


if __name__ == "__main__":
    main()
