"""Selection of the calibration that a localizer applies: the index's own, or the default one."""

from dataclasses import dataclass, replace

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.index.manifest import AdaptationInfo, CodecInfo
from vpr_dhe.localization.calibration.default import default_calibration
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.calibration.storage import read_calibration
from vpr_dhe.records import CalibrationSource, Localization, StrPath


@dataclass(frozen=True)
class SelectedCalibration:
    """Calibration that a localizer applies.

    Args:
        calibration: None if there is none for the setup, or it cannot be used.
        source: origin of the calibration; None without one.
        fault: error of a calibration of the index that cannot be used; raised where a probability is required.
    """

    calibration: Calibration | None = None
    source: CalibrationSource | None = None
    fault: BadInputError | IndexDamagedError | None = None

    def change_to(self, adaptation: AdaptationInfo | None, codec: CodecInfo | None) -> str | None:
        """Change of an index that makes the calibration invalid, in words; None without one, or for the default one.

        Other processes may adapt an open index, or store its maps by another codec.
        """
        if self.calibration is None or self.source == "default":
            return None
        return self.calibration.conditions.change_to(adaptation, codec)

    def apply(self, answer: Localization, adaptation: AdaptationInfo | None, codec: CodecInfo | None) -> Localization:
        """The answer with a probability of its best match, unless shards are missing or the query is blank."""
        if self.calibration is None or answer.missing_shards or answer.blank or self.change_to(adaptation, codec):
            return answer
        matches = self.calibration.with_probability(answer.matches)
        return replace(answer, matches=tuple(matches), calibration=self.source)

    def require(self, rerank: int, rank_by: str, stop_early: float | None) -> None:
        """Require a calibration; the arguments are for the message.

        Raises:
            BadInputError: if there is none, or that of the index was stored by another version.
            IndexDamagedError: if that of the index is damaged.
        """
        if self.fault is not None:
            # Anew each time, because the traceback of an error keeps what the query holds.
            raise type(self.fault)(str(self.fault))
        if self.calibration is None:
            early = "" if stop_early is None else f", stopped early at a margin of {stop_early:g}"
            raise BadInputError(
                "a minimum probability was given, but the index is not calibrated for this model and verifier with "
                f"rerank {rerank}, ranked by {rank_by}{early}; run `vpr-dhe calibrate INDEX` with the same --verifier, "
                "--rerank, --stop-early, --rank-by and --adapt, and again after `compact` with another --codec"
            )

    def require_for(self, adaptation: AdaptationInfo | None, codec: CodecInfo | None) -> None:
        """Raise BadInputError if the calibration is not valid for this adaptation and codec."""
        if change := self.change_to(adaptation, codec):
            raise BadInputError(
                f"a minimum probability was given, but the index was {change} after it was calibrated; run `vpr-dhe "
                "calibrate INDEX` again"
            )


def select_calibration(folder: StrPath, conditions: Conditions) -> SelectedCalibration:
    """Select the calibration of an index for these conditions or, if it has none, the default one.

    If that of the index cannot be used, none is selected.
    """
    try:
        own = read_calibration(folder, conditions)
    except IndexFormatError as error:
        # The format of the index itself is right.
        return SelectedCalibration(fault=BadInputError(str(error)))
    except IndexDamagedError as error:
        return SelectedCalibration(fault=error)
    if own:
        return SelectedCalibration(own, "index")
    default = default_calibration(conditions)
    return SelectedCalibration(default, default and "default")
