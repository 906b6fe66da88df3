"""Alignment of slightly shifted images of two sensors, such as RGB and near infrared.

    pip install "vpr-dhe[benchmarks]"
    python benchmarks/multimodal.py PAIRS --pairs 12

takes evenly spread pairs with known homographies of a folder for `evaluate-pairs`. B is resampled into the frame of A,
both are cropped to a rectangle that both show, and the two crops are shifted against each other by 2.5, 5, 7.5 or 10 %
of their longer side in a random direction, so that every method starts at the identity. The error of a pair is the mean
distance of the four corners of A under the estimate and under the truth, divided by the longer side; a pair is aligned
if its error is below 0.01. Writes `benchmarks/results/multimodal.md` and `multimodal.json` after every pair.

Mutual information is that of Mattes et al. in SimpleITK, first with a translation, then with an affine transform, each
over four resolutions.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import cos, isfinite, pi, sin
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import cv2
import numpy as np
from jaxtyping import Bool, Float64
from measuring import RESULTS, write_result

from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.datasets.pairs.base import HomographyPair
from vpr_dhe.evaluation.alignment_metrics import corner_error_px
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import HomographyEstimator, View

SHIFTS = (0.025, 0.05, 0.075, 0.1)
ALIGNED_BELOW = 0.01
ESTIMATORS = ("cross-modal", "weak-alignment", "weak-alignment-pseudo")
MUTUAL_INFORMATION = "mutual information"
Aligner = Callable[[Image, Image], Float64[np.ndarray, "3 3"] | None]


@dataclass(frozen=True)
class Outcome:
    """Result of one method on one shifted pair: `error`, infinite if it failed, wall-clock and CPU seconds."""

    pair: str
    shift: float
    method: str
    error: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class ShiftedPair:
    """Two crops of one size; `homography` maps pixels of A to pixels of B."""

    image_a: Image
    image_b: Image
    homography: Float64[np.ndarray, "3 3"]


def shifted(pair: HomographyPair, shift: float, random: np.random.Generator) -> ShiftedPair:
    """Crop both images of a pair to their common part, with B shifted by a share of the longer side."""
    image_a, image_b = pair.image_a(), pair.image_b()
    size = image_size(image_a)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    in_frame_of_a = cv2.warpPerspective(image_b, pair.homography, size, flags=flags)
    shown = cv2.warpPerspective(np.full(image_b.shape[:2], 255, np.uint8), pair.homography, size, flags=flags)
    left, top, width, height = largest_rectangle(shown == 255)
    direction, longer = random.uniform(0, 2 * pi), max(width, height) / (1 + shift)
    right, down = round(shift * longer * cos(direction)), round(shift * longer * sin(direction))
    size = Size(width - abs(right), height - abs(down))
    a = _cropped(image_a, left + max(0, -right), top + max(0, -down), size)
    b = _cropped(in_frame_of_a, left + max(0, right), top + max(0, down), size)
    return ShiftedPair(a, b, np.array([[1.0, 0.0, -right], [0.0, 1.0, -down], [0.0, 0.0, 1.0]]))


def largest_rectangle(shown: Bool[np.ndarray, "height width"]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the largest fully shown rectangle of the image's aspect ratio."""
    missing = cv2.integral((~shown).astype(np.uint8))
    for percent in range(100, 20, -1):
        height, width = (side * percent // 100 for side in shown.shape)
        count = missing[height:, width:] - missing[:-height, width:] - missing[height:, :-width]
        tops, lefts = np.nonzero(count + missing[:-height, :-width] == 0)
        if len(tops):
            middle = len(tops) // 2
            return int(lefts[middle]), int(tops[middle]), width, height
    raise ValueError("the images of this pair show hardly anything in common")


def _cropped(image: Image, left: int, top: int, size: Size) -> Image:
    return np.ascontiguousarray(image[top : top + size.height, left : left + size.width])


def by_estimator(estimator: HomographyEstimator) -> Aligner:
    """Align a pair by a method of the package."""

    def align(image_a: Image, image_b: Image) -> Float64[np.ndarray, "3 3"] | None:
        a, b = (View.of_image(image) for image in (image_a, image_b))
        found = estimator.estimate(a, [b])
        return found.matrices[0].numpy() if found.valid[0] else None

    return align


def maximised_mutual_information(image_a: Image, image_b: Image) -> Float64[np.ndarray, "3 3"]:
    """Align a pair by the mutual information of grey values."""
    import SimpleITK as Itk

    fixed, moving = (
        Itk.GetImageFromArray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32))
        for image in (image_a, image_b)
    )
    middle = [(side - 1) / 2 for side in image_size(image_a)]
    shift = _registered(Itk, fixed, moving, Itk.TranslationTransform(2))
    affine = Itk.AffineTransform(2)
    affine.SetCenter(middle)
    affine.SetTranslation(shift.GetParameters())
    found = _registered(Itk, fixed, moving, affine)
    matrix, centre = np.array(found.GetMatrix()).reshape(2, 2), np.array(middle)
    homography = np.eye(3)
    homography[:2, :2] = matrix
    homography[:2, 2] = centre + np.array(found.GetTranslation()) - matrix @ centre
    return homography


def _registered(itk, fixed, moving, transform):
    """Maximise the mutual information over a transform, coarse to fine."""
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([8, 4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0, 1.0, 0.0])
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def measure(pair: HomographyPair, shift: float, seed: int, aligners: dict[str, Aligner]) -> Iterator[Outcome]:
    """Align a pair by each method."""
    images = shifted(pair, shift, np.random.default_rng(seed))
    size = image_size(images.image_a)
    for name, aligner in aligners.items():
        started, cpu_started = perf_counter(), process_time()
        found = aligner(images.image_a, images.image_b)
        seconds, cpu_seconds = perf_counter() - started, process_time() - cpu_started
        error = corner_error_px(found, images.homography, size) / max(size)
        yield Outcome(pair.name, shift, name, error, seconds, cpu_seconds)


def markdown(outcomes: Sequence[Outcome], names: Sequence[str]) -> str:
    """Format the share of aligned pairs and the median error by method and shift."""
    shifts = sorted({outcome.shift for outcome in outcomes})
    header = ["method", *(f"{100 * shift:g} %: aligned, median error" for shift in shifts), "CPU s/pair"]
    lines = [header, ["---"] * len(header)]
    for name in names:
        of_method = [outcome for outcome in outcomes if outcome.method == name]
        cells = [_summary([outcome for outcome in of_method if outcome.shift == shift]) for shift in shifts]
        lines.append([name, *cells, f"{median(outcome.cpu_seconds for outcome in of_method):.1f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _summary(outcomes: Sequence[Outcome]) -> str:
    errors = [outcome.error for outcome in outcomes]
    aligned = sum(error < ALIGNED_BELOW for error in errors)
    return f"{aligned} of {len(errors)}, {median(errors):.4f}"


def _as_json(outcome: Outcome) -> dict[str, object]:
    """Convert an outcome to JSON, which has no infinity."""
    return asdict(outcome) | {"error": outcome.error if isfinite(outcome.error) else None}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of pairs")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--shifts", type=float, nargs="+", default=SHIFTS, help="shifts as shares of the longer side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    aligners: dict[str, Aligner] = {name: by_estimator(build_estimator(name)) for name in ESTIMATORS}
    aligners[MUTUAL_INFORMATION] = maximised_mutual_information
    pairs = read_pairs(arguments.data).limited(arguments.pairs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for number, pair in enumerate(pairs.pairs):
        for shift in arguments.shifts:
            outcomes += measure(pair, shift, arguments.seed + number, aligners)
        table = markdown(outcomes, list(aligners))
        protocol = f"{pairs.protocol}; {number + 1} measured, seed {arguments.seed}"
        (arguments.out / "multimodal.md").write_text(f"{protocol}\n\n{table}\n")
        result = {"dataset": pairs.name, "protocol": protocol, "aligned_below": ALIGNED_BELOW}
        write_result(
            arguments.out / "multimodal.json",
            "multimodal",
            result | {"outcomes": [_as_json(outcome) for outcome in outcomes]},
        )
    print(table)


if __name__ == "__main__":
    main()
