"""Mean corner error of every estimator that needs no trained head, pair by pair.

    python benchmarks/align_pairs.py FOLDER_WITH_PAIRS_CSV

prints a table in pixels of the second image, and the median time of one pair.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from vpr_dhe.estimators import METHODS, build_estimator
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images import decode_image, image_size
from vpr_dhe.places.homography_pairs import HomographyPair, read_homography_pairs
from vpr_dhe.report.formats import text_table
from vpr_dhe.verification import Verifier, align


def measure(pair: HomographyPair, method: str) -> tuple[float, float]:
    """Mean corner error in pixels (infinite where the estimate failed) and milliseconds."""
    image_a, image_b = decode_image(pair.image_a), decode_image(pair.image_b)
    verifier = Verifier(build_estimator(method, None))
    started = perf_counter()
    found = align(image_a, image_b, verifier).homography
    elapsed_ms = 1e3 * (perf_counter() - started)
    if found is None:
        return float("inf"), elapsed_ms
    estimate, truth = torch.from_numpy(found), torch.from_numpy(pair.homography)
    return float(mean_corner_error(estimate, truth, corners(image_size(image_a)))), elapsed_ms


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="the first pairs only")
    arguments = parser.parse_args()
    pairs = read_homography_pairs(arguments.folder)[: arguments.limit]
    methods = [name for name, method in METHODS.items() if method.works_with_any_model]
    measured = {method: [measure(pair, method) for pair in pairs] for method in methods}
    rows = [[pair.name, *(f"{measured[method][row][0]:.2f}" for method in methods)] for row, pair in enumerate(pairs)]
    rows.append(["median", *(f"{median(error for error, _ in measured[method]):.2f}" for method in methods)])
    rows.append(["ms per pair", *(f"{median(ms for _, ms in measured[method]):.0f}" for method in methods)])
    print(text_table(["mean corner error, px", *methods], rows))


if __name__ == "__main__":
    main()
