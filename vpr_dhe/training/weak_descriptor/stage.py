"""The stage `weak-descriptor`: a patch descriptor for any images of the kinds that aligned pairs show.

SIFT keypoints of A, moved by the homography of their pair, say which patches of B show the same; patches of other
places are to lie a margin apart. Finding keypoints and sampling them costs more than learning from them, so training
goes in rounds: the patches of some pairs are kept, and learned from for some epochs.

Source: Dong et al., "Learning to Align Images using Weak Geometric Supervision", 3DV 2018 (arXiv:1808.01424). Unlike
there, each patch is held against all others of its batch that show another place, and those within the margin count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import cos, pi
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vpr_dhe.errors import DatasetError
from vpr_dhe.images import image_size
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair, order_of_epoch
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation
from vpr_dhe.training.weak_descriptor.pair_sets import PairData
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import (
    below_margin,
    mean_where,
    new_network,
    squared_distances,
)
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import SIDE, warp_frames
from vpr_dhe.verification.estimators.cross_modal.weak_descriptor import (
    NAME,
    WeakDescriptorSettings,
    detect_frames,
    scaled_patches,
)

_MIN_RATE = 0.01


@dataclass(frozen=True)
class WeakDescriptorStageSettings:
    """What decides how a descriptor comes out, besides its data.

    Args:
        pseudo_siamese: whether the first layer is another for each image, as for images of two sensors.
        batch_size: patches of A, and as many of B, per step and process.
        learning_rate: of stochastic gradient descent with momentum 0.9, at its height.
        decay_steps: steps after which the rate has sunk, along a cosine, to a hundredth, where it stays.
        margin: that descriptors of different places are to lie apart.
        pairs_per_round: pairs of images whose patches are learned from at a time.
        patches_per_pair: at most.
        epochs_per_round: how often a round is learned from.
        seed: of the initial weights, the data and their order.
        validation_pairs: how many pairs of images are validated with, at most.
    """

    pseudo_siamese: bool = False
    batch_size: int = 128
    learning_rate: float = 0.1
    decay_steps: int = 10_000
    margin: float = 1.0
    pairs_per_round: int = 32
    patches_per_pair: int = 256
    epochs_per_round: int = 4
    seed: int = 0
    validation_pairs: int = 20


class PatchPairs(NamedTuple):
    """Patches of A and what they show in B, one by one.

    `pairs` tells the pair of images that each is of, `places` and `widths` where they lie in B, in pixels.
    """

    of_a: Float[Tensor, "patches 3 16 16"]
    of_b: Float[Tensor, "patches 3 16 16"]
    pairs: Int64[Tensor, " patches"]
    places: Float[Tensor, "patches 2"]
    widths: Float[Tensor, " patches"]

    @classmethod
    def joined(cls, parts: Sequence["PatchPairs"]) -> "PatchPairs":
        """One after the other; there may be none."""
        none = torch.zeros(0, 3, SIDE, SIDE)
        nothing = cls(none, none, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(0))
        return cls(*(torch.cat(columns) for columns in zip(nothing, *parts, strict=True)))

    def chosen(self, which: Tensor) -> "PatchPairs":
        """Some of them, by their numbers."""
        return PatchPairs(*(column[which] for column in self))

    def apart(self) -> Bool[Tensor, "patches patches"]:
        """Which show different places for certain: of different images, or at least a width apart."""
        far = torch.cdist(self.places, self.places) >= self.widths[:, None]
        return far | (self.pairs[:, None] != self.pairs)


def patch_pairs(pair: TrainingPair, number: int, most: int, random: np.random.Generator) -> PatchPairs:
    """Patches around SIFT keypoints of A that B shows as well, at most so many; none without a homography."""
    if pair.homography is None:
        return PatchPairs.joined([])
    of_a = detect_frames(pair.image_a)
    moved = warp_frames(of_a, torch.from_numpy(pair.homography).float())
    shown = of_a.inside(image_size(pair.image_a)) & moved.inside(image_size(pair.image_b))
    numbers = shown.nonzero()[:, 0]
    numbers = numbers[torch.from_numpy(random.permutation(len(numbers))[:most])]
    of_a, moved = of_a.chosen(numbers), moved.chosen(numbers)
    return PatchPairs(
        scaled_patches(pair.image_a, of_a),
        scaled_patches(pair.image_b, moved),
        torch.full((len(numbers),), number),
        moved.centres,
        moved.widths_px(),
    )


class PatchBatches(Batches[PatchPairs]):
    """The patches of a round, shuffled in each epoch."""

    def __init__(self, settings: WeakDescriptorStageSettings) -> None:
        self._settings = settings
        self.patches = PatchPairs.joined([])

    def batch(self, turn: Turn) -> PatchPairs:
        """Take the patches of a turn."""
        size = self._settings.batch_size
        first, count = (turn.step * turn.processes + turn.process) * size, len(self.patches.pairs)
        places = [divmod(number, count) for number in range(first, first + size)]
        numbers = [int(order_of_epoch(self._settings.seed, epoch, count)[place]) for epoch, place in places]
        return self.patches.chosen(torch.tensor(numbers))


class WeakDescriptorStage(Stage[PatchPairs]):
    """Trains a patch network from nothing.

    Args:
        data: pairs with homographies to learn from and to validate with.
        settings: see there.
        training_data: what the images are and their licences, for the network file.
    """

    def __init__(self, data: PairData, settings: WeakDescriptorStageSettings, *, training_data: str) -> None:
        super().__init__()
        self._settings, self._training_data, self._data = settings, training_data, data
        self.network = new_network(settings.seed, pseudo_siamese=settings.pseudo_siamese)
        self._drawn = 0
        self._held_out: list[PatchPairs] | None = None
        self._learned = PatchBatches(settings)
        self.batches = self._learned
        self.facts: Mapping[str, Fact] = {"stage": NAME, "data": data.learned.description, **asdict(settings)}

    def optimizer(self) -> torch.optim.Optimizer:
        """Stochastic gradient descent, as where the network learns on one pair."""
        return torch.optim.SGD(self.network.parameters(), lr=self._settings.learning_rate, momentum=0.9)

    def learning_rate_factor(self, step: int) -> float:
        """Down along a cosine."""
        done = min(1.0, step / self._settings.decay_steps)
        return _MIN_RATE + (1 - _MIN_RATE) * (0.5 + 0.5 * cos(pi * done))

    def steps_per_round(self, processes: int) -> int:
        """Until a round has been learned from as often as wanted, if every pair shows as much as it may."""
        patches = self._settings.pairs_per_round * self._settings.patches_per_pair
        return max(1, self._settings.epochs_per_round * patches // (self._settings.batch_size * processes))

    def begin_round(self, step: int) -> None:  # noqa: ARG002 (a round follows from those before)
        """Look at the pairs that come after those of the last round.

        Raises:
            DatasetError: if fewer than two patches are in all of them.
        """
        end = self._drawn + self._settings.pairs_per_round
        self._learned.patches = self._look(self._data.learned, range(self._drawn, end))
        self._drawn = end
        if len(self._learned.patches.pairs) < 2:
            raise DatasetError(
                f"no two keypoints of {self._settings.pairs_per_round} pairs can be learned from; give images that "
                "show more, and pairs that overlap"
            )

    def _look(self, source: PairSource, numbers: range) -> PatchPairs:
        draws, settings = Draws(source, self._settings.seed), self._settings
        return PatchPairs.joined(
            [
                patch_pairs(
                    draws.pair(number),
                    number,
                    settings.patches_per_pair,
                    np.random.default_rng((settings.seed, number)),
                )
                for number in numbers
            ]
        )

    def get_extra_state(self) -> dict[str, Tensor]:
        """The patches of this round, and how many pairs were looked at until its end."""
        return {**self._learned.patches._asdict(), "drawn": torch.tensor(self._drawn)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Learn from these patches."""
        columns = dict(state)
        self._drawn = int(columns.pop("drawn"))
        self._learned.patches = PatchPairs(**columns)

    def forward(self, batch: PatchPairs) -> StepLoss:
        """The contrast of patches that show the same with those that do not, as far as they are within the margin."""
        of_a, of_b = self.network(batch.of_a, batch.of_b)
        attraction = squared_distances(of_a, of_b).mean()
        lengths_a, lengths_b = (descriptors.square().sum(dim=1) for descriptors in (of_a, of_b))
        squares = (lengths_a[:, None] + lengths_b - 2 * of_a @ of_b.mT).clamp(min=0)
        costs = below_margin(squares, self._settings.margin)
        repulsion = mean_where(costs, batch.apart() & (costs.detach() > 0))
        return StepLoss(
            (attraction + repulsion) / 2, {"attraction": attraction.detach(), "repulsion": repulsion.detach()}
        )

    def validate(self) -> Validation:
        """How many keypoints of held-out pairs are nearer to their own patch of B than to all that lie elsewhere."""
        if self._held_out is None:
            count = min(self._settings.validation_pairs, len(self._data.validation))
            looked = [self._look(self._data.validation, range(number, number + 1)) for number in range(count)]
            self._held_out = [patches for patches in looked if len(patches.pairs)]
        if not self._held_out:
            raise DatasetError("no held-out pair shows a keypoint in both images; give other pairs")
        found = torch.cat([self._recognised(patches) for patches in self._held_out])
        recall = 100 * float(found.double().mean())
        return Validation(100 - recall, {"recall_at_1": recall})

    def _recognised(self, patches: PatchPairs) -> Bool[Tensor, " patches"]:
        device = self.network.first_a.weight.device
        of_a, of_b = self.network(patches.of_a.to(device), patches.of_b.to(device))
        distances = torch.cdist(of_a, of_b)
        elsewhere = distances.masked_fill(~patches.apart().to(device), torch.inf).amin(dim=1)
        return (distances.diagonal() < elsewhere).cpu()

    def model_file(self) -> NetworkFile:
        """The network as it is now."""
        settings = WeakDescriptorSettings(int(self._settings.pseudo_siamese))
        return network_file(NAME, settings, self.network, training_data=self._training_data)
