"""Alignment methods on pairs with measured homographies, and on oblique views made from photos.

    python benchmarks/aligners.py PAIRS PHOTOS... --pairs 4

Each photo is taken for a plane, which two cameras see: one nearly from the front, and one at an angle, turned and
zoomed, in other light (`Difficulty`). The truth is exact. Writes `benchmarks/results/wide_baselines.md` and `.json`:
share of the pairs with a mean corner error below 10 px, and the median.
"""

import argparse
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64
from measuring import RESULTS, table, write_result

from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.datasets.pairs.base import HomographyPair, PairSet, true_homography
from vpr_dhe.datasets.pairs.pictures import list_pictures
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.pair_evaluation import Aligner, AlignmentResult, PairEvaluation, evaluate_pair_set
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import NOTHING_TO_MATCH, Image, Size, Verification
from vpr_dhe.verification.alignment import build_aligners, load_resources

Homography = Float64[np.ndarray, "3 3"]

METHODS = ("magsac", "asift", "ransac-flow", "auto")
OPENCV = "SIFT + MAGSAC of OpenCV"
LIMIT_PX = 10.0
MIN_COMMON = 0.2
MAX_ATTEMPTS = 20_000


@dataclass(frozen=True)
class Difficulty:
    """Ranges of the differences between two views.

    Args:
        name: of the pairs.
        tilt: angle of the second camera, in degrees from the vertical.
        zoom: of the second camera.
        turn: largest rotation in the image, in degrees.
        night: share of second views that are dark, with lamps.
        noise: standard deviation, of 1.
    """

    name: str
    tilt: tuple[float, float]
    zoom: tuple[float, float]
    turn: float
    night: float
    noise: float


DIFFICULTIES = (
    Difficulty("moderate", (35.0, 55.0), (0.8, 2.0), 20.0, 0.0, 0.01),
    Difficulty("strong", (55.0, 76.0), (0.7, 4.0), 45.0, 0.4, 0.03),
    Difficulty("extreme", (66.0, 78.0), (0.6, 5.0), 60.0, 0.5, 0.04),
)


def camera(size: Size, tilt: float, zoom: float, turn: float, generator: random.Random) -> Homography:
    """Homography from pixels of a photo to those of a camera at an angle, in a random direction, and off the middle."""
    direction, focal = generator.uniform(0, 2 * math.pi), 1.2 * max(size)
    sine, cosine = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    tilted = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    rotation = _turned(math.radians(turn)) @ _turned(-direction) @ tilted @ _turned(direction)
    middle_x, middle_y = (size.width - 1) / 2, (size.height - 1) / 2
    shift_x, shift_y = (generator.uniform(-0.15, 0.15) * side for side in size)
    centred = np.array([[1, 0, shift_x - middle_x], [0, 1, shift_y - middle_y], [0, 0, 1]])
    seen = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, focal / zoom]])
    return np.array([[focal, 0, middle_x], [0, focal, middle_y], [0, 0, 1]]) @ seen @ centred


def _turned(angle: float) -> Homography:
    return np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])


def cameras(size: Size, difficulty: Difficulty, generator: random.Random) -> tuple[Homography, Homography]:
    """Draw two cameras that see enough of the photo in common, either of them first."""
    for _ in range(MAX_ATTEMPTS):
        front = camera(size, generator.uniform(0, 20), 1.0, 0.0, generator)
        zoom = math.exp(generator.uniform(*map(math.log, difficulty.zoom)))
        turn = generator.uniform(-difficulty.turn, difficulty.turn)
        oblique = camera(size, generator.uniform(*difficulty.tilt), zoom, turn, generator)
        seen = [_sees(one, size) for one in (front, oblique)]
        if (seen[0] & seen[1]).mean() > MIN_COMMON and _is_before(oblique, front, size):
            return (front, oblique) if generator.random() < 0.5 else (oblique, front)
    raise BadInputError(f"no two cameras see enough of a photo of {size.width} x {size.height} px in common")


def _grid(size: Size) -> Float64[np.ndarray, "3 points"]:
    x, y = np.meshgrid(np.linspace(0, size.width - 1, 40), np.linspace(0, size.height - 1, 40))
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size)])


def _sees(view: Homography, size: Size) -> np.ndarray:
    x, y, depth = view @ _grid(size)
    return (depth > 0) & (x >= 0) & (x < depth * size.width) & (y >= 0) & (y < depth * size.height)


def _is_before(a: Homography, b: Homography, size: Size) -> bool:
    """Whether all of either view lies before the horizon of the other, at most four times as large."""
    for matrix in (a @ np.linalg.inv(b), b @ np.linalg.inv(a)):
        mapped = matrix / matrix[2, 2] @ _grid(size)
        if not (mapped[2] > 0).all() or np.ptp(mapped[:2] / mapped[2], axis=1).max() > 4 * max(size):
            return False
    return True


def in_light(view: Image, difficulty: Difficulty, *, night: bool, seed: int) -> Image:
    """Change exposure, contrast and colours, blur and add noise; at night, darken and add lamps."""
    generator = np.random.default_rng(seed)
    light = (view / 255.0) ** math.exp(generator.uniform(-0.6, 0.6)) * generator.uniform(0.8, 1.2, 3)
    if night:
        light = 0.45 * light**1.8
        rows, columns = np.mgrid[: view.shape[0], : view.shape[1]]
        for _ in range(5):
            x, y = generator.uniform(0, view.shape[1]), generator.uniform(0, view.shape[0])
            halo = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * generator.uniform(15, 60) ** 2))
            light += generator.uniform(0.1, 0.5) * halo[..., None] * [1.0, 0.8, 0.5]
    light = cv2.GaussianBlur(light, (0, 0), generator.uniform(0.3, 1.0))
    light = light + generator.normal(0, difficulty.noise, light.shape)
    return (np.clip(light, 0, 1) * 255).astype(np.uint8)


def made_pairs(folders: list[Path], difficulty: Difficulty, number: int) -> PairSet:
    """Make pairs from evenly spread photos of each folder; they depend on nothing but the photos' names."""
    pairs: list[HomographyPair] = []
    for folder in folders:
        names = list_pictures(folder)
        for name in names[:: max(1, len(names) // number)][:number]:
            generator = random.Random(f"{difficulty.name}/{name}")
            size = image_size(decode_named(folder / name))
            a, b = cameras(size, difficulty, generator)
            seed, night = generator.randrange(2**32), generator.random() < difficulty.night
            view_a = partial(_view, folder / name, a, difficulty, night=False, seed=seed)
            view_b = partial(_view, folder / name, b, difficulty, night=night, seed=seed + 1)
            truth = true_homography(b @ np.linalg.inv(a), name)
            pairs.append(HomographyPair(f"{folder.name}/{name}", folder.name, view_a, view_b, truth))
    return PairSet(difficulty.name, str(asdict(difficulty)), tuple(pairs))


def _view(path: Path, matrix: Homography, difficulty: Difficulty, *, night: bool, seed: int) -> Image:
    photo = decode_named(path)
    view = cv2.warpPerspective(photo, matrix, image_size(photo)).astype(np.uint8, copy=False)
    return in_light(view, difficulty, night=night, seed=seed)


def by_opencv(a: Image, b: Image) -> Verification:
    """Align by what OpenCV has: SIFT, ratio test of 0.8, USAC_MAGSAC at 3 px."""
    detector = cv2.SIFT.create()
    (points_a, of_a), (points_b, of_b) = (
        detector.detectAndCompute(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), None) for one in (a, b)
    )
    if of_a is None or of_b is None or len(points_b) < 2:
        return NOTHING_TO_MATCH
    nearest = [pair for pair in cv2.BFMatcher().knnMatch(of_a, of_b, k=2) if len(pair) == 2]
    clear = [best for best, second in nearest if best.distance < 0.8 * second.distance]
    source = np.array([points_a[one.queryIdx].pt for one in clear], np.float64).reshape(-1, 2)
    target = np.array([points_b[one.trainIdx].pt for one in clear], np.float64).reshape(-1, 2)
    try:
        found, inside = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 3.0, maxIters=10_000, confidence=0.9999)
    except cv2.error:
        return NOTHING_TO_MATCH
    if found is None:
        return NOTHING_TO_MATCH
    chosen = inside.ravel() > 0
    return Verification(found, float(chosen.sum()), source[chosen], target[chosen])


def summary(result: AlignmentResult) -> str:
    """Share of pairs below 10 px, and the median error."""
    errors = [pair.corner_error_px for pair in result.pairs]
    share = 100 * sum(error < LIMIT_PX for error in errors) / len(errors)
    usual_px = result.overall.median_px
    return f"{share:.0f} %, {f'{usual_px:.1f} px' if math.isfinite(usual_px) else 'failed'}"


def rows(results: list[PairEvaluation], seconds: dict[str, list[float]]) -> Iterator[list[str]]:
    """One row of the table per method."""
    for number, first in enumerate(results[0].methods):
        of_method = [result.methods[number] for result in results]
        name = first.method if first.method == OPENCV else f"`{first.method}`"
        times = seconds[first.method]
        yield [name, *map(summary, of_method), f"{median(times):.1f} / {max(times):.1f}"]


def timed(aligner: Aligner, seconds: list[float]) -> Aligner:
    """Note the seconds of processor time of each call, which other programs do not lengthen."""

    def align(a: Image, b: Image) -> Verification:
        started = process_time()
        found = aligner(a, b)
        seconds.append(process_time() - started)
        return found

    return align


def document(results: list[PairEvaluation]) -> list[dict[str, Any]]:
    """Errors pair by pair; None where a method failed."""
    return [
        {
            "pairs": result.dataset,
            "method": one.method,
            "corner_errors_px": {
                pair.name: round(pair.corner_error_px, 2) if math.isfinite(pair.corner_error_px) else None
                for pair in one.pairs
            },
        }
        for result in results
        for one in result.methods
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs_folder", type=Path, metavar="PAIRS", help="pairs with known homographies")
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="folders of photos to make pairs from")
    parser.add_argument("--pairs", type=int, default=4, help="pairs per folder and difficulty")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="methods of `vpr-dhe align`")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="network files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    aligners: dict[str, Aligner] = {OPENCV: by_opencv}
    aligners |= build_aligners(arguments.methods, load_resources(weights=arguments.weights))
    seconds: dict[str, list[float]] = {name: [] for name in aligners}
    aligners = {name: timed(aligner, seconds[name]) for name, aligner in aligners.items()}
    sets = [read_pairs(arguments.pairs_folder)]
    sets += [made_pairs(arguments.photos, difficulty, arguments.pairs) for difficulty in DIFFICULTIES]
    results: list[PairEvaluation] = []
    for pairs in sets:
        results.append(evaluate_pair_set(pairs, aligners))
        columns = [f"{len(of.pairs)} {of.name}" for of in sets[: len(results)]]
        header = ["method", *columns, "core-seconds, median / most"]
        text = table(header, list(rows(results, seconds)))
        print(text, flush=True)
        (arguments.out / "wide_baselines.md").write_text(text + "\n")
        result = {"pairs": document(results), "core_seconds": seconds}
        write_result(arguments.out / "wide_baselines.json", "wide_baselines", result)


if __name__ == "__main__":
    main()
