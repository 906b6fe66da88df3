"""Stage `joint`: trains backbone, aggregator and homography head together.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024, section "Training": triplet
loss plus 100 times REI in pixels of the input, Adam with a learning rate of 1e-5.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor

from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.training.descriptor.stage import DescriptorSettings, ImageBatch, TripletStage
from vpr_dhe.training.devices import in_single_precision
from vpr_dhe.training.dhe.predicted import predicted_homographies
from vpr_dhe.training.dhe.stage import first_head, require_grid
from vpr_dhe.training.extracted_pairs import match_maps
from vpr_dhe.training.rei import InlierMatches, inlier_matches, rei_loss
from vpr_dhe.training.sources.triplets import TripletData
from vpr_dhe.training.stage import StepLoss
from vpr_dhe.training.trainable_extractor import TrainableExtractor
from vpr_dhe.verification.estimators.dhe import GRID, HEAD_NAME, INPUT_SIZE, DheHead


@dataclass(frozen=True)
class JointSettings(DescriptorSettings):
    """Hyperparameters: `rei_weight` multiplies REI in pixels, `min_inliers` is as in `DheSettings`."""

    rei_weight: float = 100.0
    min_inliers: int = 16


class JointStage(TripletStage):
    """Training of extractor and head; the gradient of REI reaches the backbone through the correlation of local maps.

    Args:
        extractor: extractor to train.
        model: model file with its weights and the initial head.
        data: queries and their database.
        settings: hyperparameters.
        training_data: images and their licences, for the model file.
        head: initial head instead of the model's.

    Raises:
        ModelError: if the local maps do not have 24 x 24 cells.
        DatasetError: if the data set is too small for a triplet.
    """

    def __init__(
        self,
        extractor: TrainableExtractor,
        model: ModelFile,
        data: TripletData,
        settings: JointSettings,
        *,
        training_data: str,
        head: DheHead | None = None,
    ) -> None:
        super().__init__(extractor, model, data, settings, training_data=training_data)
        require_grid(extractor.grid(model.preprocessing.size), model.name)
        self._joint = settings
        self.head = head or first_head(model, settings.seed)
        self.facts = {**self.facts, "stage": "joint"}

    def forward(self, batch: ImageBatch) -> StepLoss:
        """Triplet loss over all images, REI over the queries and their positives."""
        features = self.extractor(batch.images.flatten(0, 1))
        triplets = self.triplet_loss(features.vectors, batch)
        maps = features.local_maps.unflatten(0, batch.images.shape[:2])
        rei = self.rei(maps[:, 0], maps[:, 1])
        loss = triplets + self._joint.rei_weight * rei
        return StepLoss(loss, {"triplet_loss": triplets.detach(), "rei_px": rei.detach()})

    def rei(
        self, queries: Float[Tensor, "pairs cells dimension"], positives: Float[Tensor, "pairs cells dimension"]
    ) -> Float64[Tensor, ""]:
        """REI of local maps in pixels, with matches recomputed from the current maps."""
        points = self.head(queries, positives)
        predicted = predicted_homographies(points.query, points.candidate)
        matches = _matches(zip(queries, positives, strict=True))
        chosen = InlierMatches(*(part.to(predicted.usable.device)[predicted.usable] for part in matches))
        return rei_loss(predicted.homographies, chosen, self._joint.min_inliers)

    def model_file(self) -> ModelFile:
        """The current model with its head."""
        return super().model_file().with_head(HEAD_NAME, self.head.state_dict())


def _matches(pairs: Iterable[tuple[Tensor, Tensor]]) -> InlierMatches:
    with in_single_precision():
        found = [match_maps(query.float(), positive.float(), GRID, INPUT_SIZE) for query, positive in pairs]
    return inlier_matches(found, INPUT_SIZE)
