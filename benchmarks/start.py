"""Start and size of a `vpr-dhe query` process, for one or more installations of the package.

    python benchmarks/start.py INDEX PHOTO --installed full=venv/bin/python minimal=small/bin/python --out start.json

Each command answers one photo in a fresh process: it imports, opens index and model, and verifies 100 candidates. The
commands take turns, and medians are over `--runs`. Processor time says more than seconds where other work runs besides.
The last command is `start_without_torch.py` with the first Python: a lower bound.
"""

import argparse
import os
import resource
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from measuring import write_result

import vpr_dhe

_QUERY = ("-m", "vpr_dhe", "query")
_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


@dataclass(frozen=True)
class Start:
    """Medians of one command; `installed_mb` is the size of the folder of its packages."""

    name: str
    seconds: float
    processor_seconds: float
    peak_mb: float
    installed_mb: float | None


@dataclass(frozen=True)
class _Run:
    seconds: float
    processor_seconds: float
    peak_mb: float


def main() -> None:
    """Measure, print a line per command, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--installed", nargs="+", required=True, metavar="NAME=PYTHON", help="interpreters")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    pythons = dict(one.split("=", 1) for one in arguments.installed)
    asked = (str(arguments.index), str(arguments.photo))
    commands = {name: [python, *_QUERY, *asked, "--format", "csv"] for name, python in pythons.items()}
    models = Path(vpr_dhe.__file__).parent / "models"
    script = Path(__file__).with_name("start_without_torch.py")
    commands["without torch"] = [next(iter(pythons.values())), str(script), *asked, str(models)]
    runs = {name: [] for name in commands}
    for turn in range(arguments.runs + 1):
        for name, command in commands.items():
            measured = _measured(command)
            if turn:  # the first fills the caches of the file system
                runs[name].append(measured)
    starts = [_start(name, runs[name], pythons.get(name)) for name in commands]
    for start in starts:
        print(
            f"{start.name}: {start.seconds:.2f} s, {start.processor_seconds:.2f} s of processor time, "
            f"{start.peak_mb:.0f} MB of memory, {start.installed_mb or 0:.0f} MB installed"
        )
    write_result(arguments.out, "start", {"runs": arguments.runs, "starts": [asdict(start) for start in starts]})


def _measured(command: list[str]) -> _Run:
    """Run a command from a child of its own, because peak memory is the maximum over all children so far."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        started = perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        os.write(writing, " ".join(map(str, figures)).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return _Run(*map(float, answer.read().split()))


def _start(name: str, runs: list[_Run], python: str | None) -> Start:
    middle = (median(getattr(run, field) for run in runs) for field in ("seconds", "processor_seconds", "peak_mb"))
    return Start(name, *middle, installed_mb=None if python is None else _installed_mb(python))


def _installed_mb(python: str) -> float:
    folder = subprocess.run([python, "-c", _SITE], check=True, capture_output=True, text=True).stdout.strip()
    return sum(path.lstat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
