"""Storage of calibrations beside their index: one document per verifier."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from vpr_dhe.errors import IndexFormatError
from vpr_dhe.index.checked_json import read_document, write_document
from vpr_dhe.index.manifest import lock_for_writing
from vpr_dhe.index.snapshot import CALIBRATIONS
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.durable_files import sync_folder

FORMAT = "vpr-dhe calibration 3"
"""Incremented whenever inliers are counted differently, which invalidates earlier fits."""


@contextmanager
def calibrating(folder: StrPath) -> Iterator[Callable[[Calibration], None]]:
    """Hold the write lock of an index while calibrating it; yields the function that stores the result.

    A stored calibration replaces the one for the same verifier.

    Raises:
        IndexBusyError: if another process is writing to the index.
    """
    folder = Path(folder)
    with lock_for_writing(folder):
        yield partial(_store, folder)


def _store(folder: Path, calibration: Calibration) -> None:
    (folder / CALIBRATIONS).mkdir(exist_ok=True)
    sync_folder(folder)
    write_document(folder / CALIBRATIONS, _name(calibration.conditions), FORMAT, asdict(calibration))


def read_calibration(folder: StrPath, conditions: Conditions) -> Calibration | None:
    """Read the calibration of an index for these conditions; None if there is none.

    Raises:
        IndexFormatError: if it was stored by another version.
        IndexDamagedError: if it fails its checksum.
    """
    folder = Path(folder)
    path = folder / CALIBRATIONS / _name(conditions)
    if not path.is_file():
        return None
    chosen = f"--verifier {conditions.verifier} --rerank {conditions.rerank} --rank-by {conditions.rank_by}"
    if conditions.stop_early is not None:
        chosen += f" --stop-early {conditions.stop_early:g}"
    remedy = f"calibrate again with `vpr-dhe calibrate {folder} {chosen}`"
    content = read_document(path, FORMAT, remedy)
    try:
        calibration = Calibration.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise IndexFormatError(f"{path} was written by another version ({error}); {remedy}") from error
    return calibration if calibration.conditions == conditions else None


def _name(conditions: Conditions) -> str:
    return f"{conditions.verifier}.json"
