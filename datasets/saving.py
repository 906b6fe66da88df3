"""The end of the recipes of the package's own models and networks."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from vpr_dhe.errors import VprDheError
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.network_file import NetworkFile


def save(out: Path, make: Callable[[Path], ModelFile | NetworkFile]) -> int:
    """Write what is made in a work folder beside the file, which stays if it fails; returns the exit code."""
    work = out.with_suffix(".work")
    try:
        make(work).save(out)
    except VprDheError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    shutil.rmtree(work)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0
