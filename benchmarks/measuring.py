"""Fresh processes, peak memory, and results with their provenance, for all benchmarks."""

import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from vpr_dhe.evaluation.provenance import this_machine

RESULTS = Path(__file__).parent / "results"
"""Folder of the results of all benchmarks."""


def seconds(work: Callable[[], object], clock: Callable[[], float] = perf_counter) -> float:
    """Time one call, in seconds of a clock."""
    started = clock()
    work()
    return clock() - started


@contextmanager
def folder_for(cache: Path | None) -> Iterator[Path]:
    """Yield the folder of a cache, or a temporary one."""
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-benchmark-") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one process in MB: all of it, and the part that is not pages of mapped files."""

    peak_mb: float
    peak_private_mb: float


@contextmanager
def measured_memory() -> Iterator[Callable[[], Memory]]:
    """Watch this process; the peak of private memory is the maximum of many samples."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], private_mb())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, max(peak[0], private_mb()))
    finally:
        done.set()
        thread.join()


def private_mb() -> float:
    """Return the memory of this process in MB, without mapped files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def processor_seconds() -> float:
    """Return the processor time of this process and of all processes below it, those that have ended included."""
    stats: dict[int, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            # The name of a process, in parentheses, may hold anything.
            stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    tree, found = {os.getpid()}, 0
    while len(tree) > found:
        found = len(tree)
        tree |= {process for process, fields in stats.items() if int(fields[1]) in tree}
    ticks = sum(int(ticks) for process in tree & stats.keys() for ticks in stats[process][11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])


def write_result(out: Path | None, benchmark: str, result: dict[str, Any], *, device: str = "cpu") -> None:
    """Write a result with its machine, which names the device, and its commit, if a path is given."""
    if out is not None:
        document = {"benchmark": benchmark, "commit": commit(), "machine": asdict(this_machine(device))} | result
        out.write_text(json.dumps(document, indent=1) + "\n")


def commit() -> str:
    """Return the commit of this checkout, and whether it has changes; `unknown` for a copy without its history."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Results that benchmarks write do not change what they measure.
        changed = git("status", "--porcelain", "--", ".", ":!results")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
