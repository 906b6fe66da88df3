"""Facts about an adaptation that the manifest keeps: how it came about, and its files."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vpr_dhe.index.files import FileInfo

PairSource: TypeAlias = Literal["positions", "times", "verified pairs"]
"""Facts by which images of one place were recognised."""


@dataclass(frozen=True)
class Trial:
    """Result of one step of an adaptation on held-out places of the map.

    Args:
        step: `centring`, `whitening` or `hubs`.
        recall_at_1: percent of queries whose first answer is right.
        gain: mean gain in reciprocal rank over what it was compared with, in percent.
        error: standard error of the gain, over places.
        chosen: whether the gain is beyond chance, and the largest of the alternatives.
    """

    step: str
    recall_at_1: float
    gain: float
    error: float
    chosen: bool = False


@dataclass(frozen=True)
class AdaptationReport:
    """Pairs that an adaptation was learned from, and its trials on held-out places.

    Args:
        images: number of images of the map at the time.
        source: facts by which images of one place were recognised; None if there were none.
        pairs: number of pairs learned from, or found if nothing was learned.
        queries: number of images that were queries of the trials; 0 without trials.
        recall_at_1: percent of these whose first answer by extracted descriptors is right.
        trials: one per step tried, in order; empty if too few images have a positive.
    """

    images: int
    source: PairSource | None
    pairs: int
    queries: int = 0
    recall_at_1: float = 0.0
    trials: tuple[Trial, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """Steps that were chosen, in the order in which they apply."""
        return tuple(trial.step for trial in self.trials if trial.chosen)


@dataclass(frozen=True)
class AdaptationInfo:
    """Adaptation of the vectors to their map.

    Args:
        report: record of how it came about.
        parameters: file of the transform; None if no step helps, and vectors are searched as extracted.
        terms: files of the terms of all images, ascending by id.
    """

    report: AdaptationReport
    parameters: FileInfo | None = None
    terms: tuple[FileInfo, ...] = ()

    @property
    def name(self) -> str | None:
        """Name of the adaptation, unique for all time; None if vectors are searched as extracted."""
        return self.parameters and self.parameters.name
