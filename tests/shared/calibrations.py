"""Calibrations of indexes made by tests."""

from pathlib import Path

from vpr_dhe.localization.calibration.probability import Calibration
from vpr_dhe.localization.calibration.storage import calibrating


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Store a calibration in an index."""
    with calibrating(folder) as store:
        store(calibration)
