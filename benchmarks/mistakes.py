"""Time until a misspelt name is reported: ten typical cases, each in a new process.

    python benchmarks/mistakes.py

Writes `benchmarks/results/mistakes.md` and `mistakes.json`: the median and the maximum of wall-clock time, which other
work on the machine lengthens, and of processor time, which it does not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import PIL.Image
from measuring import RESULTS, table, write_result

MISTAKES = (
    "qurey my-index photos",
    "query my-index photos --verifer magsac",
    "query my-index photos --verifier magsak",
    "query my-indx photos",
    "query my-index phtos",
    "query my-index photos --format jsn",
    "index phtos --out new",
    "index photos --out new --model lite-vald",
    "index photos --out new --codec flaot16",
    "evaluate photos --layout foldres",
)


@dataclass(frozen=True)
class Row:
    """Times of one mistake, in seconds."""

    command: str
    message: str
    median_wall_s: float
    max_wall_s: float
    median_processor_s: float


def measured(command: str, place: Path, repeats: int) -> Row:
    """Make one mistake several times."""
    walls, processors, message = [], [], ""
    for _ in range(repeats):
        before, started = os.times(), perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "vpr_dhe", *command.split()], cwd=place, capture_output=True, text=True, check=False
        )
        walls.append(perf_counter() - started)
        after = os.times()
        processors.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 2, done.stderr
        message = done.stderr.strip().splitlines()[-1]
    return Row(command, message, median(walls), max(walls), median(processors))


def markdown(rows: list[Row]) -> str:
    """Format all rows as one Markdown table."""
    header = ["`vpr-dhe` ...", "median s", "maximum s", "processor s"]
    lines = [
        [f"`{row.command}`", f"{row.median_wall_s:.2f}", f"{row.max_wall_s:.2f}", f"{row.median_processor_s:.2f}"]
        for row in rows
    ]
    return table(header, lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-mistakes-") as folder:
        place = Path(folder)
        for name in ("photos", "my-index"):
            (place / name).mkdir()
        (place / "my-index/manifest.json").write_text("{}")
        PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "photos/0.png")
        rows = [measured(command, place, arguments.repeats) for command in MISTAKES]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "mistakes.md").write_text(f"{markdown(rows)}\n")
    write_result(arguments.out / "mistakes.json", "mistakes", {"rows": [asdict(row) for row in rows]})
    print(markdown(rows))


if __name__ == "__main__":
    main()
