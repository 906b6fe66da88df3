"""Stage `local`: trains a local head on the tokens of a frozen extractor.

Views of one image or panorama are related by a homography that holds everywhere, which gives the correspondence of each
cell; pairs of images may have matches instead. Sky is labelled by colour, and gets random clouds (`sky.py`). The two
losses are a simpler form of those of Revaud et al., "R2D2: Repeatable and reliable detector and descriptor", NeurIPS
2019: cross-entropy of the correspondence (as in Sun et al., "LoFTR: Detector-free local feature matching with
transformers", CVPR 2021, equation 5) and of the reliability.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vpr_dhe.errors import DatasetError
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.features.local_head import CONTEXT, LocalHead, LocalHeadSizes
from vpr_dhe.geometry.coordinates import resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.exported_model import require_weights
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.devices import in_single_precision, to_device
from vpr_dhe.training.extracted_pairs import homography_between_inputs
from vpr_dhe.training.held_out import HeldOut
from vpr_dhe.training.local_head.correspondence import (
    Correspondence,
    HeadLoss,
    corresponding_cells,
    head_loss,
    matched_cells,
)
from vpr_dhe.training.local_head.sky import sky_cells, with_clouds
from vpr_dhe.training.schedules import warm_cosine_decay
from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation

# Share of the training images that get random clouds.
_CLOUDS = 0.5


@dataclass(frozen=True)
class LocalHeadSettings:
    """Hyperparameters of `local`.

    Args:
        batch_size: pairs per step and process.
        learning_rate: peak learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        decay_steps: length of the cosine schedule, after which the learning rate stays at a hundredth.
        reliability_weight: weight of the loss of reliabilities; that of descriptors is 1.
        hidden: channels of the head's convolution.
        dimension: length of its descriptors.
        seed: seed of the head's initial weights, the data and their order.
        validation_pairs: maximum number of validation pairs.
    """

    batch_size: int = 12
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    decay_steps: int = 1200
    reliability_weight: float = 0.3
    hidden: int = 128
    dimension: int = 64
    seed: int = 0
    validation_pairs: int = 120


class TokenPairs(NamedTuple):
    """Batch of pairs on the CPU: unit tokens, zero in cells without texture, and the correspondence of cells.

    `sky_a` and `sky_b` are masks of sky cells, `there` maps from A to B, and `back` from B to A.
    """

    tokens_a: Float[Tensor, "pairs cells dimension"]
    tokens_b: Float[Tensor, "pairs cells dimension"]
    sky_a: Bool[Tensor, "pairs cells"]
    sky_b: Bool[Tensor, "pairs cells"]
    there: Correspondence
    back: Correspondence


class TokenBatches(Batches[TokenPairs]):
    """Batches of pairs and their tokens."""

    def __init__(self, source: PairSource, extractor: Extractor, settings: LocalHeadSettings) -> None:
        self._draws, self._extractor, self._settings = Draws(source, settings.seed), extractor, settings

    def batch(self, turn: Turn) -> TokenPairs:
        """Load the pairs of a turn and extract their tokens."""
        size = self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        pairs = [self._draws.pair(number) for number in range(first, first + size)]
        return self.prepare(pairs, np.random.default_rng((self._settings.seed, first)))

    def prepare(self, pairs: Sequence[TrainingPair], random: np.random.Generator | None = None) -> TokenPairs:
        """Extract the tokens of pairs; with `random`, half of the images get random clouds.

        Raises:
            DatasetError: if the correspondence of cells is unknown, because homographies hold on one surface only.
        """
        spec = self._extractor.spec
        there, back = zip(*(_counterparts(pair, spec) for pair in pairs), strict=True)
        images = [image for pair in pairs for image in (pair.image_a, pair.image_b)]
        sky = torch.from_numpy(np.stack([sky_cells(image, spec.grid) for image in images]))
        if random is not None:
            images = [with_clouds(image, random) if random.random() < _CLOUDS else image for image in images]
        tokens = torch.stack([one.local_map for one in self._extractor.extract(images)]).cpu()
        return TokenPairs(
            tokens[::2], tokens[1::2], sky[::2], sky[1::2], Correspondence.joined(there), Correspondence.joined(back)
        )


def _counterparts(pair: TrainingPair, spec: ExtractorSpec) -> tuple[Correspondence, Correspondence]:
    """Correspondence of cells from A to B and from B to A."""
    if pair.matches is not None:
        grid, size = spec.grid, spec.input_size
        a, b = (
            project(resizing(image_size(image), size), torch.from_numpy(points))
            for image, points in ((pair.image_a, pair.matches[:, :2]), (pair.image_b, pair.matches[:, 2:]))
        )
        return matched_cells(a, b, grid, size), matched_cells(b, a, grid, size)
    if pair.homography is None or not pair.holds_everywhere:
        raise DatasetError(
            "training a local head needs matches, or homographies that hold in the whole image, which pairs of a "
            "place data set do not have; give folders of images"
        )
    homography = homography_between_inputs(pair, spec.input_size)
    there, back = (
        corresponding_cells(matrix, spec.grid, spec.input_size) for matrix in (homography, torch.linalg.inv(homography))
    )
    return there, back


class LocalHeadStage(Stage[TokenPairs]):
    """Training of a local head.

    Args:
        extractor: frozen extractor of tokens, without a local head; the head is added to its model file.
        training: training pairs with matches, or with homographies that hold everywhere.
        validation: held-out pairs of the same kind.
        settings: hyperparameters.
        training_data: images and their licences, for the model file.
        head: initial head; by default a new one.
    """

    def __init__(
        self,
        extractor: Extractor,
        training: PairSource,
        validation: PairSource,
        settings: LocalHeadSettings,
        *,
        training_data: str,
        head: LocalHead | None = None,
    ) -> None:
        super().__init__()
        self._base, self._settings, self._training_data = require_weights(extractor.model_file), settings, training_data
        self._grid = extractor.spec.grid
        self.head = head or new_head(extractor.spec.local_dimension, settings)
        batches = TokenBatches(training, extractor, settings)
        self.batches = batches
        self._held_out = HeldOut(
            validation,
            settings.seed,
            max_pairs=settings.validation_pairs,
            batch_size=settings.batch_size,
            prepare=batches.prepare,
        )
        self.facts: Mapping[str, Fact] = {
            "stage": "local",
            "extractor": extractor.spec.fingerprint,
            "pairs": training.description,
            **asdict(settings),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        settings = self._settings
        return torch.optim.AdamW(self.head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up over 50 steps, then cosine decay."""
        return warm_cosine_decay(step, self._settings.decay_steps)

    def forward(self, batch: TokenPairs) -> StepLoss:
        """Loss of both directions of the pairs."""
        losses = self._losses(batch)
        matching, reliability, found = (torch.stack(terms).mean() for terms in zip(*losses, strict=True))
        loss = matching + self._settings.reliability_weight * reliability
        return StepLoss(loss, {"matching": matching.detach(), "reliability": reliability.detach(), "found": found})

    def _losses(self, batch: TokenPairs) -> list[HeadLoss]:
        (a, logits_a), (b, logits_b) = (self.head.cells(tokens, self._grid) for tokens in batch[:2])
        with in_single_precision():
            similarity = a.float() @ b.float().mT
        return [
            head_loss(similarity, logits_a, batch.there, batch.sky_a),
            head_loss(similarity.mT, logits_b, batch.back, batch.sky_b),
        ]

    @torch.no_grad()
    def validate(self) -> Validation:
        """Loss, and the share of cells inside both images whose nearest neighbour is their corresponding cell."""
        device = next(self.head.parameters()).device
        batches = self._held_out.batches(self.preparation)
        measured = [self.forward(to_device(batch, device)) for batch in batches]
        scalars = {name: fmean(float(one.scalars[name]) for one in measured) for name in measured[0].scalars}
        return Validation(fmean(float(one.loss) for one in measured), scalars)

    def model_file(self) -> ModelFile:
        """The extractor's model file with this head."""
        model = self._base.with_local_head(CONTEXT, self.head.state_dict())
        return replace(model, training_data=f"{model.training_data}; local head: {self._training_data}")


def new_head(dimension: int, settings: LocalHeadSettings) -> LocalHead:
    """Make a head with random weights."""
    with seeded(settings.seed):
        return LocalHead(dimension, LocalHeadSizes(settings.hidden, settings.dimension))
