"""Stored results of the finished parts of a fit, for resuming it."""

import io
import shutil
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vpr_dhe.records import Progress
from vpr_dhe.runtime.durable_files import write_durably
from vpr_dhe.training.run_folder import claim_folder
from vpr_dhe.training.stage import Fact

PART_SIZE = 64
"""Number of images whose results are stored together."""
_SUFFIX = ".partial"


def partial_folder(out: Path) -> Path:
    """Folder of the partial results of a file."""
    return out.with_name(f"{out.name}{_SUFFIX}")


class PartialResults:
    """Folder `FILE.partial` next to the output file of a fit; call `remove` after writing the file.

    Args:
        out: output file of the fit.
        facts: everything that determines the result; a fit is resumed only with the same facts.

    Raises:
        BadInputError: if the folder contains something else, or results of a fit with other settings.
    """

    def __init__(self, out: Path, facts: Mapping[str, Fact]) -> None:
        self.folder = partial_folder(out)
        claim_folder(self.folder, facts, f"remove {self.folder} to start again")

    def arrays(self, name: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Read the arrays of a step, or compute and store them."""
        stored = self._read(name)
        return self._write(name, compute()) if stored is None else stored

    def rows(
        self, name: str, total: int, compute: Callable[[int], Iterable[np.ndarray]], progress: Progress
    ) -> np.ndarray:
        """Concatenate the rows of all images, stored in parts of 64 images.

        Args:
            name: name of the step.
            total: number of images.
            compute: function that yields the rows of each image, starting at the given number.
            progress: called with the number of images just finished or already stored.
        """
        parts: list[np.ndarray] = []
        starts = range(0, total, PART_SIZE)
        for first in starts:
            stored = self._read(f"{name}-{first}")
            if stored is None:
                break
            parts.append(stored["rows"])
            progress(min(PART_SIZE, total - first))
        if len(parts) < len(starts):
            images = iter(compute(starts[len(parts)]))
            for first in starts[len(parts) :]:
                rows = []
                for image in islice(images, PART_SIZE):
                    rows.append(image)
                    progress(1)
                parts.append(self._write(f"{name}-{first}", {"rows": np.concatenate(rows)})["rows"])
        return np.concatenate(parts)

    def _read(self, name: str) -> dict[str, np.ndarray] | None:
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path) as stored:
                return dict(stored)
        except Exception:  # damaged files raise errors of any kind; their results are computed again
            return None

    def _write(self, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        content, named = io.BytesIO(), dict[str, Any](arrays)
        np.savez(content, **named)
        write_durably(self.folder, f"{name}.npz", content.getvalue())
        return dict(arrays)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)
