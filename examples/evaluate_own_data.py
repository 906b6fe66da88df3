"""Measure models and verifiers on your own photos.

    python examples/evaluate_own_data.py my-data --positions my-data/positions.csv --verifiers magsac poselib

`my-data` contains the folders `database` and `queries`; the table has a column `image` (`database/0001.jpg`, ...) and
positions. Without a table, positions come from file names or EXIF. Prints recall@N in percent, one line per method.
"""

import argparse
from pathlib import Path

from vpr_dhe import VprDheError, evaluate
from vpr_dhe.datasets.base import Protocol


def main() -> None:
    """Evaluate each model, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--positions", type=Path, help="CSV with the positions of all images")
    parser.add_argument("--radius", type=float, default=25.0, help="metres within which a match is right [25]")
    parser.add_argument("--models", nargs="+", default=["lite-vlad"])
    parser.add_argument("--verifiers", nargs="+", default=["magsac"])
    arguments = parser.parse_args()

    protocol = Protocol(radius_m=arguments.radius, positions=arguments.positions)
    print(f"{'model':12} {'method':12} {'R@1':>6} {'R@5':>6} {'R@10':>6}  ms/query")
    for model in arguments.models:
        try:
            result = evaluate(arguments.data, model=model, verifiers=arguments.verifiers, protocol=protocol)
        except VprDheError as error:
            raise SystemExit(f"{model}: {error}") from error
        for method in result.methods:
            recall = method.scores.recall if method.scores else {}
            figures = " ".join(f"{recall[rank]:6.1f}" for rank in (1, 5, 10) if rank in recall)
            print(f"{model:12} {method.name:12} {figures}  {result.total_ms(method):8.0f}")


if __name__ == "__main__":
    main()
