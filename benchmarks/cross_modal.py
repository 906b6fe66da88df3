"""Mean corner error of homographies between two modalities, on pairs that no network was trained on.

    pip install "vpr-dhe[benchmarks]"
    python datasets/split_pairs.py DATA --out parts/NAME
    python benchmarks/cross_modal.py parts/NAME... --weights run/best.safetensors...

takes the part `test` of each folder, deforms its pairs as training does (patches of 128 px of photos of 192 px, corners
moved by up to 32 px along each axis), once for each of five seeds, and writes `benchmarks/results/cross_modal.md` and
`cross_modal.json`. Every network is measured on every data set, whatever it was trained on. Folders of weights that
differ only in a number at the end, `alto-0` and `alto-1`, are trainings of one method, which has one row. A failed pair
counts as the identity, so that failing never improves a score. Mutual information is as in `multimodal.py`.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median, pstdev, stdev
from typing import NamedTuple

import cv2
import numpy as np
import torch
from measuring import RESULTS, write_result
from multimodal import maximised_mutual_information

from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.datasets.pairs.base import HomographyPair, PairSet
from vpr_dhe.evaluation.pair_evaluation import Aligner, AlignmentResult, evaluate_pair_set
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.network_file import load_network
from vpr_dhe.records import NOT_VERIFIED, Image, Size, Verification
from vpr_dhe.training.registration.aligned import AlignedImages
from vpr_dhe.training.registration.deformed_patches import PatchBatches, image_side_px
from vpr_dhe.training.sources.base import Draws
from vpr_dhe.verification.alignment import build_aligner
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.guided_matching import CrossModalEstimator
from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.base import homographies_of, is_a_view
from vpr_dhe.verification.estimators.cross_modal.registration.estimator import squeezed_to
from vpr_dhe.verification.estimators.resources import Resources

SIDE_PX = 128
UNMOVED = "identity"
_TRAINING_NUMBER = re.compile(r"-\d+\)$")
_NO_POINTS = np.empty((0, 2))


@dataclass(frozen=True)
class Row:
    """Result of one method on one data set: mean corner errors by seed and by training.

    Of several trainings, the median is that of their medians, and failures and milliseconds are theirs on average.
    """

    dataset: str
    pairs: int
    method: str
    learned_from: str
    training: str
    mace_px: tuple[float, ...]
    of_trainings_px: tuple[float, ...]
    median_px: float
    failed: int
    median_ms: float


def deformed_pairs(root: Path, seed: int) -> PairSet:
    """Deform each test pair of a folder once."""
    side_px = image_side_px(SIDE_PX)
    source = AlignedImages(read_pairs(root / "test").pairs, side_px, varied=False, description=root.name)
    batches, size = PatchBatches(Draws(source, seed), SIDE_PX, 1), Size(SIDE_PX, SIDE_PX)
    pairs = []
    for number in range(len(source)):
        batch = batches.of(range(number, number + 1))
        image_a, image_b = (_image(patches[0].numpy()) for patches in (batch.patches_a, batch.patches_b))
        matrix = homographies_of(batch.displacements[0].double(), size).numpy()
        pairs.append(HomographyPair(str(number), "", partial(_same, image_a), partial(_same, image_b), matrix))
    return PairSet(root.resolve().name, f"patches of {SIDE_PX} px, seed {seed}", tuple(pairs))


def _same(image: Image) -> Image:
    return image


def _image(pixels: np.ndarray) -> Image:
    return np.rint(255 * pixels.transpose(1, 2, 0)).astype(np.uint8)


def unmoved(*_: Image) -> Verification:
    """Return the identity."""
    return Verification(np.eye(3), 0.0, _NO_POINTS, _NO_POINTS)


def photometric(image_a: Image, image_b: Image) -> Verification:
    """Maximise the correlation of grey values from the identity on (ECC of OpenCV; Evangelidis and Psarakis, 2008)."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image_a, image_b)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
    try:
        _, found = cv2.findTransformECC(
            greys[0], greys[1], np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, criteria, None, 5
        )
    except cv2.error:  # no convergence
        return NOT_VERIFIED
    matrix = torch.from_numpy(found / found[2, 2]).double()
    return _verified_if_a_view(matrix, image_size(image_a))


def _verified_if_a_view(matrix: torch.Tensor, size: Size) -> Verification:
    square = corners(size)
    if not is_a_view(project(matrix, square) - square, size):
        return NOT_VERIFIED
    return Verification(matrix.numpy(), 0.0, _NO_POINTS, _NO_POINTS)


def by_mutual_information(image_a: Image, image_b: Image) -> Verification:
    """Maximise the mutual information of grey values over affine transforms, from the identity on."""
    try:
        matrix = torch.from_numpy(maximised_mutual_information(image_a, image_b))
    except RuntimeError:  # the images left each other
        return NOT_VERIFIED
    return _verified_if_a_view(matrix, image_size(image_a))


def by_network(estimator: HomographyEstimator, image_a: Image, image_b: Image) -> Verification:
    """Align two images by an estimator that needs only the images."""
    views = [View.of_image(image) for image in (image_a, image_b)]
    found = estimator.estimate(views[0], views[1:])
    if not found.valid[0]:
        return NOT_VERIFIED
    return Verification(found.matrices[0].numpy(), 0.0, _NO_POINTS, _NO_POINTS)


def by_mirrored_network(estimator: CrossModalEstimator, image_a: Image, image_b: Image) -> Verification:
    """Align two images by the network of `cross-modal` and the mirror images of both, without matches.

    Where a displacement is impossible, the network's estimate is the identity, so nothing fails.
    """
    preprocessing, device = squeezed_to(Size(SIDE_PX, SIDE_PX)), next(estimator.network.parameters()).device
    a, b = (to_network_input([image], preprocessing, device) for image in (image_a, image_b))
    with torch.inference_mode():
        return Verification(estimator.register(a, b).numpy(), 0.0, _NO_POINTS, _NO_POINTS)


class Learned(NamedTuple):
    """Training data of a network, and its training time and size, as far as the folder of its run records them."""

    source: str = ""
    training: str = ""


def learned(path: Path, training_data: str) -> Learned:
    """Read the facts of a network file, next to which its run has left `training.json`."""
    facts = path.parent / "training.json"
    if not facts.exists():
        return Learned(training_data, "not known")
    run = json.loads(facts.read_text(encoding="utf-8"))
    training = f"{run['steps']} steps of {run['batch_size']}, {run['side_px']} px, width {run['width']}"
    return Learned(training_data, training)


def untrained_aligners(device: str) -> dict[str, Aligner]:
    """Name the methods that learn nothing, and that of the package."""
    cross_modal = CrossModalEstimator.bundled(device)
    return {
        "SIFT, magsac": build_aligner("magsac"),
        "photometric (ECC)": photometric,
        "mutual information": by_mutual_information,
        "cross-modal, network and mirrors alone": partial(by_mirrored_network, cross_modal),
        "cross-modal": partial(by_network, cross_modal),
    }


def network_aligners(
    weights: Sequence[Path], device: str, *, guided: bool
) -> tuple[dict[str, Aligner], dict[str, Learned]]:
    """Name networks after the folders of their files; returns them and what they learned from.

    With `guided`, networks of `iterative` are also measured inside of `cross-modal`.
    """
    aligners, known = dict[str, Aligner](), dict[str, Learned]()
    for path in weights:
        file = load_network(path)
        built = build_estimator(file.method, Resources(networks={file.method: file}, device=device))
        estimators = {file.method: built}
        if guided and file.method == IterativeEstimator.name:
            estimators[CrossModalEstimator.name] = CrossModalEstimator.from_file(file, device)
        for method, estimator in estimators.items():
            name = f"{method} ({path.resolve().parent.name})"
            aligners[name] = partial(by_network, estimator)
            known[name] = learned(path, file.training_data)
    return aligners, known


def measure(
    root: Path, seeds: Sequence[int], aligners: Mapping[str, Aligner], known: Mapping[str, Learned]
) -> list[Row]:
    """Evaluate all methods on one data set."""
    by_seed = []
    for seed in seeds:
        pairs = deformed_pairs(root, seed)
        by_seed.append({result.method: result for result in evaluate_pair_set(pairs, aligners).methods})
    return [
        _row(pairs, method, known.get(method, Learned()), [(run[method], run[UNMOVED]) for run in by_seed])
        for method in aligners
    ]


def _row(pairs: PairSet, method: str, known: Learned, runs: Sequence[tuple[AlignmentResult, AlignmentResult]]) -> Row:
    errors_px = [
        [
            pair.corner_error_px if np.isfinite(pair.corner_error_px) else start.corner_error_px
            for pair, start in zip(run.pairs, unmoved_run.pairs, strict=True)
        ]
        for run, unmoved_run in runs
    ]
    return Row(
        dataset=pairs.name,
        pairs=len(pairs.pairs),
        method=method,
        learned_from=known.source,
        training=known.training,
        mace_px=tuple(fmean(errors) for errors in errors_px),
        of_trainings_px=(fmean(fmean(errors) for errors in errors_px),),
        median_px=median(error for errors in errors_px for error in errors),
        failed=sum(run.overall.failed for run, _ in runs),
        median_ms=median(run.median_ms for run, _ in runs),
    )


def over_trainings(rows: Sequence[Row]) -> list[Row]:
    """Join the rows of trainings of one method that are alike but for their seeds."""
    groups = dict[tuple[str, ...], list[Row]]()
    for row in rows:
        alike = row.dataset, row.learned_from, row.training
        groups.setdefault((_TRAINING_NUMBER.sub(")", row.method), *alike), []).append(row)
    return [rows[0] if len(rows) == 1 else _joined(method, rows) for (method, *_), rows in groups.items()]


def _joined(method: str, trainings: Sequence[Row]) -> Row:
    return replace(
        trainings[0],
        method=method,
        mace_px=tuple(fmean(errors) for errors in zip(*(row.mace_px for row in trainings), strict=True)),
        of_trainings_px=tuple(error for row in trainings for error in row.of_trainings_px),
        median_px=median(row.median_px for row in trainings),
        failed=round(fmean(row.failed for row in trainings)),
        median_ms=median(row.median_ms for row in trainings),
    )


def markdown(rows: Sequence[Row]) -> str:
    """Format all results as a Markdown table."""
    header = [
        "data set",
        "pairs",
        "method",
        "learned from",
        "for",
        "MACE px",
        "over seeds",
        "over trainings",
        "median px",
        "failed",
        "ms/pair",
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        trainings = f"± {stdev(row.of_trainings_px):.2f}" if len(row.of_trainings_px) > 1 else ""
        scores = [f"{fmean(row.mace_px):.2f}", f"± {pstdev(row.mace_px):.2f}", trainings, f"{row.median_px:.2f}"]
        ends = [f"{row.failed} of {row.pairs * len(row.mace_px)}", f"{row.median_ms:.0f}"]
        lines.append([row.dataset, str(row.pairs), row.method, row.learned_from, row.training, *scores, *ends])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", type=Path, nargs="+", help="folders of datasets/split_pairs.py")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="network files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--name", default="cross_modal", help="name of the result files, without ending")
    parser.add_argument("--guided", action="store_true", help="measure `cross-modal` with each network, too")
    parser.add_argument("--networks-only", action="store_true", help="leave out methods without --weights")
    arguments = parser.parse_args()
    others = {} if arguments.networks_only else untrained_aligners(arguments.device)
    networks, known = network_aligners(arguments.weights, arguments.device, guided=arguments.guided)
    aligners = {UNMOVED: unmoved} | others | networks
    rows = over_trainings([row for root in arguments.parts for row in measure(root, arguments.seeds, aligners, known)])
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(table := markdown(rows))
    (arguments.out / f"{arguments.name}.md").write_text(f"{table}\n")
    document = {"seeds": arguments.seeds, "rows": [asdict(row) for row in rows]}
    write_result(arguments.out / f"{arguments.name}.json", "cross_modal", document)


if __name__ == "__main__":
    main()
