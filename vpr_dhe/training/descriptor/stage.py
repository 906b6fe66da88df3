"""Stage `descriptor`: trains a global descriptor on triplets of a place data set or on pairs of any source.

Sources: Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022 (triplets of margin 0.1, Adam at 1e-5,
mining); Wang et al., "Multi-Similarity Loss with General Pair Weighting", CVPR 2019, with the parameters of Ali-bey et
al., "GSV-Cities", Neurocomputing 2022 (alpha 1, beta 50, lambda 0, epsilon 0.1).
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import triplet_margin_loss

from vpr_dhe.datasets.base import PlaceDataset
from vpr_dhe.errors import ImageError
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Image, Preprocessing
from vpr_dhe.runtime.extras import import_extra
from vpr_dhe.runtime.prefetching import read_ahead
from vpr_dhe.training.descriptor.relit import RelitPairs
from vpr_dhe.training.devices import in_single_precision
from vpr_dhe.training.mining import MiningSettings, TripletMiner, Triplets
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair, others_of_place, same_place_mask
from vpr_dhe.training.sources.triplets import TripletData
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation
from vpr_dhe.training.trainable_extractor import TrainableExtractor

_CPU = torch.device("cpu")
# Images per batch without gradients.
_EXTRACTION_BATCH = 16
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class DescriptorSettings:
    """Hyperparameters of `descriptor`.

    Args:
        batch_size: triplets, or pairs, per step and process.
        learning_rate: learning rate of Adam.
        margin: margin of the triplet loss.
        mining: settings of the mining of triplets.
        seed: seed of the order of the data.
        validation_pairs: maximum number of validation pairs.
    """

    batch_size: int = 4
    learning_rate: float = 1e-5
    margin: float = 0.1
    mining: MiningSettings = field(default_factory=MiningSettings)
    seed: int = 0
    validation_pairs: int = 200


class DescriptorStage(Stage[Batch]):
    """Base of the descriptor stages: optimiser, validation and the model file."""

    def __init__(
        self, extractor: TrainableExtractor, model: ModelFile, validation: PairSource, settings: DescriptorSettings
    ) -> None:
        super().__init__()
        self.extractor, self._settings, self._preprocessing = extractor, settings, model.preprocessing
        self._validation = Draws(validation, settings.seed)
        trained = sorted(name for name, value in extractor.named_parameters() if value.requires_grad)
        self.facts: Mapping[str, Fact] = {
            "model": model.extractor_fingerprint,
            "trained": f"{len(trained)} tensors from {trained[0]}",
            # Runs of before have no such fact, and froze none.
            **({"frozen_norms": extractor.frozen_norms} if extractor.frozen_norms else {}),
            **_flat(settings),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over all parameters that are not frozen."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self._settings.learning_rate)

    def validate(self) -> Validation:
        """Rank the other image of each held-out pair among the images of pairs that show other places."""
        count = min(self._settings.validation_pairs, len(self._validation.source))
        advance, places = self.preparation.begin("held-out pairs", count), list[frozenset[str]]()
        queries, candidates = list[Tensor](), list[Tensor]()
        for first in range(0, count, _EXTRACTION_BATCH):
            pairs = list[TrainingPair]()
            for number in range(first, min(first + _EXTRACTION_BATCH, count)):
                pairs.append(self._validation.pair(number))
                advance(1)
            queries.append(self._vectors([pair.image_a for pair in pairs]))
            candidates.append(self._vectors([pair.image_b for pair in pairs]))
            places += [pair.places for pair in pairs]
        distances = torch.cdist(torch.cat(queries), torch.cat(candidates))
        distances = distances.masked_fill(others_of_place(same_place_mask(places)), torch.inf)
        # Ties and NaN count against a network, which collapsed if there are many. The pair itself counts once.
        ranks = (~(distances > distances.diagonal()[:, None])).sum(dim=1)
        reciprocal = float((1 / ranks).mean())
        recall = 100 * float((ranks == 1).double().mean())
        return Validation(1 - reciprocal, {"mean_reciprocal_rank": reciprocal, "recall_at_1": recall})

    def _vectors(self, images: Sequence[Image]) -> Float[Tensor, "images dimension"]:
        """Global descriptors of images, on the CPU and without gradients."""
        device = next(self.parameters()).device
        with torch.no_grad():
            return self.extractor(to_network_input(images, self._preprocessing, device)).vectors.float().cpu()

    def extract_files(self, paths: Sequence[Path]) -> Float[Tensor, "images dimension"]:
        """Global descriptors of image files.

        Raises:
            ImageError: if one cannot be read.
            TimeLimitError: if the time limit ends during preparation.
        """
        images, advance, vectors = _decoded(paths), self.preparation.begin("images to mine", len(paths)), list[Tensor]()
        for _ in _starts(paths):
            vectors.append(self._vectors(list(islice(images, _EXTRACTION_BATCH))))
            advance(len(vectors[-1]))
        return torch.cat(vectors)

    @abstractmethod
    def model_file(self) -> ModelFile:
        """The current model."""


class ImageBatch(NamedTuple):
    """Preprocessed images, in groups of a fixed size."""

    images: Float[Tensor, "groups members 3 height width"]


class PairBatch(NamedTuple):
    """Preprocessed images of each pair or group, and a mask of pairs that may show the same place."""

    images: Float[Tensor, "pairs members 3 height width"]
    same_place: Bool[Tensor, "pairs pairs"]


class PairBatches(Batches[PairBatch]):
    """Batches of image pairs, or of larger groups where the source makes them."""

    def __init__(self, source: PairSource, preprocessing: Preprocessing, settings: DescriptorSettings) -> None:
        self._draws, self._preprocessing, self._size = Draws(source, settings.seed), preprocessing, settings.batch_size

    def batch(self, turn: Turn) -> PairBatch:
        """Load the pairs of a turn."""
        first = (turn.step * turn.processes + turn.process) * self._size
        members = self._draws.source.members
        groups = [self._draws.group(number, members) for number in range(first, first + self._size)]
        images = _as_input([group.images for group in groups], self._preprocessing).images
        return PairBatch(images, same_place_mask([group.places for group in groups]))


class MultiSimilarityStage(DescriptorStage[PairBatch]):
    """Training on pairs of any source with the multi-similarity loss; images of a pair or group are positives.

    Pairs that may show the same place are neither positives nor negatives of each other: images taken nearby need not
    overlap, for example if the cameras face away from each other.

    Args:
        extractor: extractor to train.
        model: model file with its weights.
        data: pairs for training and validation.
        settings: hyperparameters; use batches of tens of pairs, so that the miner has a choice.
        training_data: images and their licences, for the model file.
        random_light: whether to relight photographs each time; warps and towns always have random lighting.

    Raises:
        MissingExtraError: if pytorch-metric-learning is not installed.
    """

    def __init__(
        self,
        extractor: TrainableExtractor,
        model: ModelFile,
        data: TrainingData,
        settings: DescriptorSettings,
        *,
        training_data: str,
        random_light: bool = True,
    ) -> None:
        super().__init__(extractor, model, data.validation, settings)
        self._training_data = training_data
        self._miner, self._loss = _multi_similarity()
        # Pairs with known homographies are generated from one image or town, already with random lighting.
        photographs = not data.positives.knows_homographies
        source = RelitPairs(data.positives, model.preprocessing) if random_light and photographs else data.positives
        self.batches = PairBatches(source, model.preprocessing, settings)
        self.facts = {"stage": "descriptor, multi-similarity", "data": source.description, **self.facts}
        if source.members > 2:
            self.facts = {**self.facts, "images_per_place": source.members}

    def forward(self, batch: PairBatch) -> StepLoss:
        """Loss over the pairs of images that the miner finds informative."""
        groups, members = batch.images.shape[:2]
        vectors = self.extractor(batch.images.flatten(0, 1)).vectors.float()
        labels = torch.arange(groups, device=vectors.device).repeat_interleave(members)
        with in_single_precision():
            anchors, positives, others, negatives = self._miner(vectors, labels)
            apart = ~batch.same_place[labels[others], labels[negatives]]
            loss = self._loss(vectors, labels, (anchors, positives, others[apart], negatives[apart]))
        return StepLoss(loss, {"mined": len(anchors) + apart.sum().float()})

    def model_file(self) -> ModelFile:
        """The current model."""
        return self.extractor.model_file(self._training_data)


class TripletBatches(Batches[ImageBatch]):
    """Batches of mined triplets: query, positive and negatives."""

    def __init__(self, dataset: PlaceDataset, preprocessing: Preprocessing, size: int, triplets: Triplets) -> None:
        self.dataset, self.triplets = dataset, triplets
        self._preprocessing, self._size = preprocessing, size

    def batch(self, turn: Turn) -> ImageBatch:
        """Decode the triplets of a turn, in the order of mining."""
        first = (turn.step * turn.processes + turn.process) * self._size
        numbers = [number % len(self.triplets) for number in range(first, first + self._size)]
        return _as_input([self._images(self.triplets[number].tolist()) for number in numbers], self._preprocessing)

    def _images(self, triplet: list[int]) -> list[Image]:
        query, *rows = triplet
        queries, database = self.dataset.queries, self.dataset.database
        paths = [queries.folder / queries.records[query].path]
        paths += [database.folder / database.records[row].path for row in rows]
        return [decode_named(path) for path in paths]


class TripletStage(DescriptorStage[ImageBatch]):
    """Training on triplets of a place data set, which are mined again in each round.

    Args:
        extractor: extractor to train.
        model: model file with its weights.
        data: queries and their database.
        settings: hyperparameters.
        training_data: images and their licences, for the model file.

    Raises:
        DatasetError: if the data set is too small for a triplet.
    """

    def __init__(
        self,
        extractor: TrainableExtractor,
        model: ModelFile,
        data: TripletData,
        settings: DescriptorSettings,
        *,
        training_data: str,
    ) -> None:
        super().__init__(extractor, model, data.validation, settings)
        self._training_data = training_data
        self._miner = TripletMiner(data.training, settings.mining)
        none = torch.zeros(0, 2 + settings.mining.negatives, dtype=torch.int64)
        self._triplets = TripletBatches(data.training, model.preprocessing, settings.batch_size, none)
        self.batches = self._triplets
        learned = f"{data.training.name}: {len(data.training.queries.records)} queries ({data.training.protocol})"
        self.facts = {"stage": "descriptor, triplets", "data": learned, **self.facts}

    def steps_per_round(self, processes: int) -> int:
        """Steps until all mined triplets have been used."""
        return max(1, self._miner.triplets_per_round // (self._settings.batch_size * processes))

    def begin_round(self, step: int) -> None:
        """Mine triplets with the current descriptors."""
        self.set_extra_state(self._miner.mine(self.extract_files, np.random.default_rng((self._settings.seed, step))))

    def get_extra_state(self) -> Triplets:
        """The triplets of this round."""
        return self._triplets.triplets

    def set_extra_state(self, state: Triplets) -> None:
        """Restore the triplets of a round."""
        self._triplets.triplets = state

    def forward(self, batch: ImageBatch) -> StepLoss:
        """Mean of max(0, margin + |q - p| - |q - n|) over all negatives."""
        loss = self.triplet_loss(self.extractor(batch.images.flatten(0, 1)).vectors, batch)
        return StepLoss(loss, {"triplet_loss": loss.detach()})

    def triplet_loss(self, vectors: Float[Tensor, "images dimension"], batch: ImageBatch) -> Float[Tensor, ""]:
        """Triplet loss of the vectors of all images of a batch."""
        groups, members = batch.images.shape[:2]
        grouped = vectors.float().unflatten(0, (groups, members))
        negatives = grouped[:, 2:]
        query, positive = (grouped[:, member, None].expand_as(negatives) for member in (0, 1))
        with in_single_precision():
            return triplet_margin_loss(
                query.flatten(0, 1), positive.flatten(0, 1), negatives.flatten(0, 1), margin=self._settings.margin
            )

    def model_file(self) -> ModelFile:
        """The current model."""
        return self.extractor.model_file(self._training_data)


def _multi_similarity() -> tuple[Any, Any]:
    losses = import_extra("train", "pytorch_metric_learning.losses")
    miners = import_extra("train", "pytorch_metric_learning.miners")
    return miners.MultiSimilarityMiner(epsilon=0.1), losses.MultiSimilarityLoss(alpha=1, beta=50, base=0.0)


def _as_input(groups: Sequence[Sequence[Image]], preprocessing: Preprocessing) -> ImageBatch:
    return ImageBatch(torch.stack([to_network_input(images, preprocessing, _CPU) for images in groups]))


def _starts(images: Sequence[object]) -> range:
    return range(0, len(images), _EXTRACTION_BATCH)


def _decoded(paths: Sequence[Path]) -> Iterator[Image]:
    for image in read_ahead(decode_named, paths):
        if isinstance(image, ImageError):
            raise image
        yield image


def _flat(settings: DescriptorSettings) -> dict[str, Fact]:
    """Settings by name, with those of mining flattened."""
    facts = asdict(settings)
    return {**{f"mining_{name}": value for name, value in facts.pop("mining").items()}, **facts}
