"""Structure of the package: functions that a query crosses, imports between top-level modules, lines, longest function.

    python benchmarks/structure.py INDEX PHOTO

INDEX is an index of `sift-vlad` and PHOTO a query. Run it in two checkouts (PYTHONPATH=CHECKOUT) to compare them.
"""

import argparse
import ast
import contextlib
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import vpr_dhe

PACKAGE = Path(vpr_dhe.__file__).parent
# Made by the compiler; a reader sees one function.
_UNNAMED = {"<module>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>"}


class Trace:
    """Functions of the package that a thread calls, with their files; jumps are calls from one file into another."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()
        self.jumps: set[tuple[str, str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call; for `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)) or code.co_name in _UNNAMED:
            return
        function = (str(Path(code.co_filename).relative_to(PACKAGE)), code.co_qualname)
        self.functions.add(function)
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        if caller.startswith(str(PACKAGE)) and caller != code.co_filename:
            self.jumps.add((str(Path(caller).relative_to(PACKAGE)), *function))

    @property
    def files(self) -> set[str]:
        """Files that the functions are in."""
        return {file for file, _ in self.functions}


def traced(work: Callable[[], object]) -> Trace:
    """Do work and note what it calls in this thread."""
    trace = Trace()
    sys.setprofile(trace)
    try:
        work()
    finally:
        sys.setprofile(None)
    return trace


def traced_query(index: str, photo: str) -> tuple[Trace, Trace]:
    """Calls of `vpr-dhe query` as a whole, and those of localizing the one photo alone."""
    from vpr_dhe import Localizer
    from vpr_dhe.cli import main

    def query() -> None:
        sys.argv = ["vpr-dhe", "query", index, photo, "--device", "cpu"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main()

    query()  # caches are filled, and heavy imports done
    localizer = Localizer.open(Path(index))
    localizer.localize(Path(photo))
    return traced(query), traced(lambda: localizer.localize(Path(photo)))


def modules() -> dict[str, ast.Module]:
    """Syntax trees of the package's files, by dotted name."""
    trees: dict[str, ast.Module] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return trees


def imported(tree: ast.Module) -> Iterator[str]:
    """Names of the package's modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)


def top(module: str) -> str:
    """First name below the package."""
    return [*module.split("."), ""][1]


def longest_functions(trees: dict[str, ast.Module], count: int) -> list[tuple[int, str]]:
    """List the longest functions by lines, docstrings included."""
    return sorted(
        (
            ((node.end_lineno or 0) - node.lineno + 1, f"{module}.{node.name}")
            for module, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ),
        reverse=True,
    )[:count]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index")
    parser.add_argument("photo")
    arguments = parser.parse_args()
    command, localize = traced_query(arguments.index, arguments.photo)
    for name, trace in (("vpr-dhe query", command), ("Localizer.localize", localize)):
        counts = {"files": trace.files, "functions": trace.functions, "jumps between files": trace.jumps}
        print(f"{name}: " + ", ".join(f"{len(found)} {what}" for what, found in counts.items()))
        stages = Counter(Path(file).parts[0] for file, _ in trace.functions)
        print("  functions: " + ", ".join(f"{stage} {count}" for stage, count in stages.most_common()))
    trees = modules()
    names = {top(module) for module in trees} - {""}
    edges = {
        (top(module), top(target))
        for module, tree in trees.items()
        for target in imported(tree)
        if top(target) in names and top(module) not in ("", top(target))
    }
    print(f"top-level modules and folders: {len(names)}; pairs of them that import: {len(edges)}")
    lines = Counter[str]()
    for path in PACKAGE.rglob("*.py"):
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text().splitlines())
    print("lines: " + ", ".join(f"{name} {count}" for name, count in lines.most_common()))
    print("longest functions: " + ", ".join(f"{name} {length}" for length, name in longest_functions(trees, 3)))
    readme = PACKAGE.parent / "README.md"
    if readme.exists():
        print(f"README: {len(readme.read_text().splitlines())} lines")


if __name__ == "__main__":
    main()
