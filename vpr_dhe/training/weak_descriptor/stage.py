"""Stage `weak-descriptor`: trains a patch descriptor on aligned image pairs, such as those of two sensors.

SIFT keypoints of A are transferred by the homography of their pair to corresponding patches of B; descriptors of other
patches should be at least a margin apart. Extracting patches takes longer than training on them, so training proceeds
in rounds: the patches of a number of pairs are extracted and used for several epochs.

Source: Dong et al., "Learning to Align Images using Weak Geometric Supervision", 3DV 2018 (arXiv:1808.01424). Unlike
there, each patch is contrasted with all patches of its batch at other positions; those within the margin count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vpr_dhe.errors import DatasetError
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.training.schedules import cosine_decay
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


@dataclass(frozen=True)
class WeakDescriptorStageSettings:
    """Hyperparameters of `weak-descriptor`.

    Args:
        pseudo_siamese: whether the images have separate first layers, as for two sensors.
        batch_size: patches of A, and of B, per step and process.
        learning_rate: peak learning rate of stochastic gradient descent with momentum 0.9.
        decay_steps: length of the cosine schedule, after which the learning rate stays at a hundredth.
        margin: minimum distance of descriptors of different places.
        pairs_per_round: image pairs per round.
        patches_per_pair: maximum number of patches of an image pair.
        epochs_per_round: number of epochs on a round.
        seed: seed of the initial weights, the data and their order.
        validation_pairs: maximum number of validation image pairs.
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
    """Patches of A and the corresponding patches of B.

    `pairs` is the number of each patch's image pair, and `shown` that of the first pair that may show the same place;
    `places` and `widths` are its position and width in B, in pixels.
    """

    of_a: Float[Tensor, "patches 3 16 16"]
    of_b: Float[Tensor, "patches 3 16 16"]
    pairs: Int64[Tensor, " patches"]
    shown: Int64[Tensor, " patches"]
    places: Float[Tensor, "patches 2"]
    widths: Float[Tensor, " patches"]

    @classmethod
    def joined(cls, parts: Sequence["PatchPairs"]) -> "PatchPairs":
        """Concatenate parts; there may be none."""
        none = torch.zeros(0, 3, SIDE, SIDE)
        numbers = torch.zeros(0, dtype=torch.int64)
        nothing = cls(none, none, numbers, numbers, torch.zeros(0, 2), torch.zeros(0))
        return cls(*(torch.cat(columns) for columns in zip(nothing, *parts, strict=True)))

    def chosen(self, which: Tensor) -> "PatchPairs":
        """Select patches by number or mask."""
        return PatchPairs(*(column[which] for column in self))

    def apart(self) -> Bool[Tensor, "patches patches"]:
        """Mask of patches that certainly differ: of different places, or of one pair and at least a width apart."""
        far = torch.cdist(self.places, self.places) >= self.widths[:, None]
        return (self.shown[:, None] != self.shown) | (far & (self.pairs[:, None] == self.pairs))


def patch_pairs(
    pair: TrainingPair, number: int, shown: int, max_patches: int, random: np.random.Generator
) -> PatchPairs:
    """Extract patches around SIFT keypoints of A that are inside B; empty without a homography.

    `number` is that of the pair, and `shown` that of the first pair that may show the same place.
    """
    if pair.homography is None:
        return PatchPairs.joined([])
    of_a = detect_frames(pair.image_a)
    moved = warp_frames(of_a, torch.from_numpy(pair.homography).float())
    inside = of_a.inside(image_size(pair.image_a)) & moved.inside(image_size(pair.image_b))
    numbers = inside.nonzero()[:, 0]
    numbers = numbers[torch.from_numpy(random.permutation(len(numbers))[:max_patches])]
    of_a, moved = of_a.chosen(numbers), moved.chosen(numbers)
    return PatchPairs(
        scaled_patches(pair.image_a, of_a),
        scaled_patches(pair.image_b, moved),
        torch.full((len(numbers),), number),
        torch.full((len(numbers),), shown),
        moved.centres,
        moved.widths_px(),
    )


class PatchBatches(Batches[PatchPairs]):
    """Batches of the patches of a round, shuffled in each epoch."""

    def __init__(self, settings: WeakDescriptorStageSettings) -> None:
        self._settings = settings
        self.patches = PatchPairs.joined([])

    def batch(self, turn: Turn) -> PatchPairs:
        """Take the patches of a turn."""
        size = self._settings.batch_size
        first, count = (turn.step * turn.processes + turn.process) * size, len(self.patches.pairs)
        numbers = []
        for number in range(first, first + size):
            epoch, position = divmod(number, count)
            numbers.append(int(order_of_epoch(self._settings.seed, epoch, count)[position]))
        return self.patches.chosen(torch.tensor(numbers))


class WeakDescriptorStage(Stage[PatchPairs]):
    """Training of a patch network from random weights.

    Args:
        data: pairs with homographies for training and validation.
        settings: hyperparameters.
        training_data: images and their licences, for the network file.
    """

    def __init__(self, data: PairData, settings: WeakDescriptorStageSettings, *, training_data: str) -> None:
        super().__init__()
        self._settings, self._training_data, self._data = settings, training_data, data
        self.network = new_network(settings.seed, pseudo_siamese=settings.pseudo_siamese)
        self._drawn = 0
        self._held_out: list[PatchPairs] | None = None
        self._round = PatchBatches(settings)
        self.batches = self._round
        self.facts: Mapping[str, Fact] = {"stage": NAME, "data": data.training.description, **asdict(settings)}

    def optimizer(self) -> torch.optim.Optimizer:
        """Stochastic gradient descent, as for training on a single pair."""
        return torch.optim.SGD(self.network.parameters(), lr=self._settings.learning_rate, momentum=0.9)

    def learning_rate_factor(self, step: int) -> float:
        """Cosine decay."""
        return cosine_decay(step, self._settings.decay_steps)

    def steps_per_round(self, processes: int) -> int:
        """Steps for all epochs of a round in which every pair has the maximum number of patches."""
        patches = self._settings.pairs_per_round * self._settings.patches_per_pair
        return max(1, self._settings.epochs_per_round * patches // (self._settings.batch_size * processes))

    def begin_round(self, step: int) -> None:  # noqa: ARG002 (depends only on the previous rounds)
        """Extract the patches of the pairs after those of the last round.

        Raises:
            DatasetError: if there are fewer than two patches.
        """
        end = self._drawn + self._settings.pairs_per_round
        numbers = range(self._drawn, end)
        self._round.patches = PatchPairs.joined(self._extract(self._data.training, numbers, "pairs of the next round"))
        self._drawn = end
        if len(self._round.patches.pairs) < 2:
            raise DatasetError(
                f"{self._settings.pairs_per_round} pairs share fewer than two keypoints; give images with more "
                "texture, and pairs that overlap"
            )

    def _extract(self, source: PairSource, numbers: range, name: str) -> list[PatchPairs]:
        draws, settings = Draws(source, self._settings.seed), self._settings
        advance, extracted = self.preparation.begin(name, len(numbers)), list[PatchPairs]()
        first_of: dict[str, int] = {}
        for number in numbers:
            pair, random = draws.pair(number), np.random.default_rng((settings.seed, number))
            # The same images may be drawn again.
            shown = min((first_of[place] for place in pair.places if place in first_of), default=number)
            first_of |= {place: min(shown, first_of.get(place, shown)) for place in pair.places}
            extracted.append(patch_pairs(pair, number, shown, settings.patches_per_pair, random))
            advance(1)
        return extracted

    def get_extra_state(self) -> dict[str, Tensor]:
        """Patches of this round, and the number of pairs drawn so far."""
        return {**self._round.patches._asdict(), "drawn": torch.tensor(self._drawn)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore the patches of a round."""
        columns = dict(state)
        self._drawn = int(columns.pop("drawn"))
        columns.setdefault("shown", columns["pairs"])  # which runs of earlier versions lack
        self._round.patches = PatchPairs(**columns)

    def forward(self, batch: PatchPairs) -> StepLoss:
        """Contrastive loss: corresponding patches attract, others repel within the margin."""
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
        """Share of keypoints of held-out pairs that are nearer to their patch of B than to all distant patches."""
        if self._held_out is None:
            count = min(self._settings.validation_pairs, len(self._data.validation))
            extracted = self._extract(self._data.validation, range(count), "held-out pairs")
            self._held_out = [patches for patches in extracted if len(patches.pairs)]
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
        """The current network."""
        settings = WeakDescriptorSettings(int(self._settings.pseudo_siamese))
        return network_file(NAME, settings, self.network, training_data=self._training_data)
