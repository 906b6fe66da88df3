"""Corner errors of homographies on warps of photos that no model and no head was trained on.

    python benchmarks/unseen_warps.py PHOTOS --models sift-vlad cct-offline

takes evenly spread photos of a folder, warps each at 384 x 384 px as training does (corners move by up to a
quarter of the side), and writes `benchmarks/results/unseen_warps.md` and `unseen_warps.json`: the mean corner error
of the estimates that did not fail (MACE), the median over all, and the share of corners within 10 px (AUC).
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from accuracy import verifiers_for
from measuring import RESULTS, write_result

from vpr_dhe.datasets.pairs.base import HomographyPair, PairSet
from vpr_dhe.evaluation.pair_evaluation import PairEvaluation, evaluate_pair_set
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import Image, Size
from vpr_dhe.report.tables.pairs import alignment_document
from vpr_dhe.training.sources.warps import WarpedImages
from vpr_dhe.verification.alignment import build_aligners, load_resources

SIZE = Size(384, 384)
AUC_PX = 10


def warped_pairs(root: Path, count: int, seed: int) -> PairSet:
    """Make pairs of `count` photos of a folder."""
    names = list_images(root)
    chosen = [names[number * len(names) // count] for number in range(min(count, len(names)))]
    source = WarpedImages([root / name for name in chosen], SIZE, root.name)
    pairs = tuple(
        HomographyPair(name, "", partial(view, source, number, seed, 0), partial(view, source, number, seed, 1), known)
        for number, name in enumerate(chosen)
        if (known := source.pair(number, np.random.default_rng((seed, number))).homography) is not None
    )
    return PairSet(root.resolve().name, f"warps at {SIZE.width} x {SIZE.height} px, seed {seed}", pairs)


def view(source: WarpedImages, number: int, seed: int, which: int) -> Image:
    """Return one of the two views of a pair."""
    pair = source.pair(number, np.random.default_rng((seed, number)))
    return (pair.image_a, pair.image_b)[which]


def markdown(results: Sequence[PairEvaluation]) -> str:
    """Format all models as one Markdown table."""
    header = ["model", "method", "MACE px", "median px", f"AUC@{AUC_PX} px", "failed", "ms/pair"]
    lines = [header, ["---"] * len(header)]
    for result in results:
        for method in result.methods:
            scores = method.overall
            mace = "" if scores.mace_px is None else f"{scores.mace_px:.1f}"
            cells = [mace, f"{scores.median_px:.1f}", f"{scores.auc_percent[AUC_PX]:.1f}", str(scores.failed)]
            lines.append([result.features, method.method, *cells, f"{method.median_ms:.0f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--models", nargs="+", required=True, help="model names or files")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    pairs = warped_pairs(arguments.photos, arguments.pairs, arguments.seed)
    results = []
    for model in arguments.models:
        methods = ["poselib", *verifiers_for(load_extractor(model))]
        aligners = build_aligners(methods, load_resources(model))
        results.append(evaluate_pair_set(pairs, aligners, features=Path(model).stem))
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(table := markdown(results))
    (arguments.out / "unseen_warps.md").write_text(f"{table}\n")
    documents = [alignment_document(result, provenance()) for result in results]
    write_result(arguments.out / "unseen_warps.json", "unseen_warps", {"pairs": documents})


if __name__ == "__main__":
    main()
