"""Sets of training pairs, with their own homographies or with those of an estimator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vpr_dhe.datasets.pairs import read_pairs, recognise_pairs
from vpr_dhe.datasets.pairs.base import PairSet
from vpr_dhe.errors import DatasetError
from vpr_dhe.records import Size
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.sources.base import JoinedPairs, PairSource, SomePairs, TrainingPair, hold_out
from vpr_dhe.verification.estimators.base import HomographyEstimator, View


@dataclass(frozen=True)
class PairData:
    """Pairs for training and for validation."""

    training: PairSource
    validation: PairSource


class SetPairs(PairSource):
    """Pairs of a pair set, unchanged."""

    knows_homographies = True

    def __init__(self, pairs: PairSet) -> None:
        self._pairs, self.description = pairs, f"{pairs.name}: {len(pairs.pairs)} pairs ({pairs.protocol})"

    def __len__(self) -> int:
        return len(self._pairs.pairs)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:  # noqa: ARG002 (nothing is random)
        """Decode both images of a pair."""
        pair = self._pairs.pairs[index]
        return TrainingPair(pair.image_a(), pair.image_b(), pair.homography, frozenset([pair.name]))


class AlignedPairs(PairSource):
    """Pairs of a source, with their homographies replaced by those of an estimator.

    Each homography is estimated once, on first use; it is None if the estimate fails.
    """

    knows_homographies = False

    def __init__(self, source: PairSource, estimator: HomographyEstimator) -> None:
        self._source, self._estimator = source, estimator
        self._found: dict[int, Float64[np.ndarray, "3 3"] | None] = {}
        self.description = f"{source.description}, aligned by {estimator.name}"

    def __len__(self) -> int:
        return len(self._source)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair, aligned on first use."""
        pair = self._source.pair(index, random)
        if index not in self._found:
            self._found[index] = self._align(pair)
        return replace(pair, homography=self._found[index])

    def _align(self, pair: TrainingPair) -> Float64[np.ndarray, "3 3"] | None:
        found = self._estimator.estimate(View.of_image(pair.image_a), [View.of_image(pair.image_b)])
        return found.matrices[0].cpu().numpy() if bool(found.valid[0]) else None


def open_pair_data(names: Sequence[str], view_size: Size, aligner: HomographyEstimator | None = None) -> PairData:
    """Open pair sets in any layout that `evaluate-pairs` reads, folders of images, and generated towns.

    Args:
        names: paths of folders, or `synthetic-town`.
        view_size: size of warped images.
        aligner: estimator of the homographies of pair sets; None uses their own.

    Raises:
        DatasetError: if a folder is missing, has an unexpected layout, is a place data set, or contains too few images.
    """
    opened = [_open(name, view_size, aligner) for name in names]
    training, validation = ([getattr(data, part) for data in opened] for part in ("training", "validation"))
    return PairData(JoinedPairs(training), JoinedPairs(validation))


def _open(name: str, view_size: Size, aligner: HomographyEstimator | None) -> PairData:
    if recognise_pairs(Path(name)) is None:
        data = open_training_data([name], view_size)
        if not data.validation.knows_homographies:
            raise DatasetError(
                f"{name} is a place data set, whose images are not aligned; give pairs, photos or {SYNTHETIC_TOWN}"
            )
        return PairData(data.warps, data.validation)
    known = SetPairs(read_pairs(Path(name)))
    source = known if aligner is None else AlignedPairs(known, aligner)
    if len(source) < 2:
        raise DatasetError(f"{name} contains one pair; at least two are needed, one of them for validation")
    training, validation = hold_out(range(len(source)))
    return PairData(SomePairs(source, training), SomePairs(source, validation))
