"""Saving of results and exit codes of the recipes of bundled models and networks."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from vpr_dhe.errors import VprDheError
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.network_file import NetworkFile


def exit_code_of(work: Callable[[], object]) -> int:
    """Run a recipe, print an error of the package as one line, and return the exit code."""
    try:
        work()
    except VprDheError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def save(out: Path, make: Callable[[Path], ModelFile | NetworkFile]) -> int:
    """Run a recipe in a work folder, kept on failure, save its result, and return the exit code."""
    work = out.with_suffix(".work")
    code = exit_code_of(lambda: make(work).save(out))
    if code == 0:
        shutil.rmtree(work)
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return code
