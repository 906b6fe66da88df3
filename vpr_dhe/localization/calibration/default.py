"""Default calibrations: files in the package for bundled models, used by indexes that have none of their own."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from vpr_dhe.localization.calibration.probability import Calibration, Conditions

NOTE = (
    "probabilities are by the default calibration, which was not fitted to this map; run `vpr-dhe calibrate INDEX` for "
    "its own"
)
"""Sentence for people who set a minimum probability."""

_FOLDER = "bundled"


@dataclass(frozen=True)
class DefaultCalibration:
    """Calibrations of one model and one verifier, one for each order of candidates.

    Args:
        model: name of the model.
        made_from: training images, in words.
        calibrations: their conditions name no codec and no adaptation, because the features that they use depend little
            on either.
    """

    model: str
    made_from: str
    calibrations: tuple[Calibration, ...]

    def write(self, folder: Path) -> Path:
        """Write the file; returns its path."""
        path = folder / f"{self.model}-{self.calibrations[0].conditions.verifier}.json"
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        _bundled.cache_clear()
        return path


def default_calibration(conditions: Conditions) -> Calibration | None:
    """Find the bundled calibration for a model, verifier, number of candidates and order; None if there is none.

    It has the given conditions, since codec and adaptation may be any. None for verifiers with weights of their own and
    for an early stop.
    """
    if conditions.learned is not None:
        return None
    for bundled in _bundled():
        for calibration in bundled.calibrations:
            if calibration.conditions == replace(conditions, codec=None, adaptation=None):
                return replace(calibration, conditions=conditions)
    return None


@cache
def _bundled() -> Sequence[DefaultCalibration]:
    files = resources.files("vpr_dhe.localization.calibration") / _FOLDER
    return tuple(_read(file.read_text(encoding="utf-8")) for file in files.iterdir() if file.name.endswith(".json"))


def _read(text: str) -> DefaultCalibration:
    document = json.loads(text)
    calibrations = tuple(Calibration.from_json(content) for content in document["calibrations"])
    return DefaultCalibration(document["model"], document["made_from"], calibrations)
