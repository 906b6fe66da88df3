"""Answers of a run: what the formats of the command line are made from."""

from collections.abc import Iterable
from dataclasses import dataclass

from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Belief, CalibrationSource, Localization
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame


@dataclass(frozen=True)
class Answer:
    """Result of one query: its localization, or the reason why it failed.

    For a frame of a sequence, `belief` is the belief after it, and `timestamp_s` its time on the recording's clock.
    """

    query: str
    localization: Localization | None = None
    error: str | None = None
    belief: Belief | None = None
    timestamp_s: float | None = None

    @classmethod
    def of(cls, frame: LocalizedFrame) -> "Answer":
        """Answer for a frame, named as the frame is."""
        return cls(frame.name or "", frame.localization, frame.error, frame.belief, frame.timestamp_s)


@dataclass(frozen=True)
class AnswerSheet:
    """All answers of one run with its index, model and verifier, and the order of verified candidates.

    `calibration` is the calibration of the probabilities, if there is one; `unix_times` says whether times of queries
    count from the Unix epoch.
    """

    index: str
    model: str
    verifier: str
    answers: tuple[Answer, ...]
    rank_by: RankBy = "inliers"
    adaptation: AdaptationReport | None = None
    calibration: CalibrationSource | None = None
    unix_times: bool = True

    @classmethod
    def of(
        cls, localizer: Localizer, verifier: str, answers: Iterable[Answer], *, unix_times: bool = True
    ) -> "AnswerSheet":
        """Sheet of the answers of a localizer, which does not know its verifier by name."""
        index = localizer.index
        return cls(
            str(index.folder),
            index.spec.model,
            verifier,
            tuple(answers),
            localizer.rank_by,
            localizer.adaptation,
            localizer.calibration_source,
            unix_times,
        )
