"""Stage `iterative`: trains a registration network by corner errors of known homographies, or by pixel differences.

Source: Cao et al., "Iterative Deep Homography Estimation", CVPR 2022: AdamW, one cycle, batches of 16, L1 of the
displacements, weighted by 0.85 per earlier iteration. Without labels: Nguyen et al., "Unsupervised Deep Homography",
2018 (arXiv:1709.03966): L1 of the pixels.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.registration.aligned import AlignedData
from vpr_dhe.training.registration.deformed_patches import PatchBatch
from vpr_dhe.training.registration.map_matching import map_matching_loss
from vpr_dhe.training.registration.perceptual import masked_mean
from vpr_dhe.training.registration.registered_patches import bring_to_b
from vpr_dhe.training.registration.sequence_loss import displacement_loss, weighted_sequence
from vpr_dhe.training.registration.stage import RegistrationStage, RegistrationTraining
from vpr_dhe.training.stage import Fact, StepLoss
from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings, build_registration


class IterativeStage(RegistrationStage):
    """Training with labels or, without `labels`, by the pixel difference between B and A warped into the frame of B.

    Training on pixels needs pairs with similar appearance. With labels, `matching_weight` is the weight of the
    cross-entropy of corresponding cells, which makes the features of the iterative network match. The other arguments
    are those of `RegistrationStage`.
    """

    def __init__(
        self,
        network: RegistrationSettings,
        data: AlignedData,
        settings: RegistrationTraining,
        *,
        training_data: str,
        labels: bool = True,
        matching_weight: float = 0.0,
    ) -> None:
        super().__init__(IterativeEstimator.name, network, data, settings, training_data=training_data)
        self._labels, self._matching_weight = labels, matching_weight
        matching: dict[str, Fact] = {"matching_weight": matching_weight} if matching_weight else {}
        self.facts: Mapping[str, Fact] = {**self.facts, "labels": labels, **matching}
        with seeded(settings.seed):
            self.network = build_registration(network)

    @property
    def registration(self) -> RegistrationNetwork:
        """The trained network."""
        return self.network

    def forward(self, batch: PatchBatch) -> StepLoss:
        """Error of the displacements, or of the pixels, after each iteration."""
        if self._matching_weight and isinstance(self.network, IterativeNetwork):
            return self._forward_matching(self.network, batch)
        estimates = self.network(batch.patches_a, batch.patches_b)
        if self._labels:
            loss = displacement_loss(estimates, batch.displacements, self.settings.decay)
        else:
            losses = [self._photometric_loss(batch, estimate) for estimate in estimates]
            loss = weighted_sequence(losses, self.settings.decay)
        return StepLoss(loss, {"last_l1_px": (estimates[-1] - batch.displacements).abs().mean().detach()})

    def _forward_matching(self, network: IterativeNetwork, batch: PatchBatch) -> StepLoss:
        """Error of the displacements after each iteration, and of the matches of the coarser maps."""
        maps = network.extract(torch.cat([batch.patches_a, batch.patches_b]))
        estimates = network.register(maps, batch.patches_b)
        displacement = displacement_loss(estimates, batch.displacements, self.settings.decay)
        matching = map_matching_loss(maps[0].float(), batch.displacements, network.size)
        last_px = (estimates[-1] - batch.displacements).abs().mean()
        scalars = {"last_l1_px": last_px.detach(), "matching": matching.detach()}
        return StepLoss(displacement + self._matching_weight * matching, scalars)

    def _photometric_loss(self, batch: PatchBatch, estimate: Float[Tensor, "pairs 4 2"]) -> Float[Tensor, ""]:
        registered = bring_to_b(batch.patches_a, estimate, self.network.size)
        difference = (registered.patches - batch.patches_b).abs().mean(dim=1)
        return masked_mean(difference, registered.shown)

    def estimate(self, batch: PatchBatch) -> Float[Tensor, "pairs 4 2"]:
        """Estimate of the last iteration."""
        return self.network(batch.patches_a, batch.patches_b)[-1]

    def model_file(self) -> NetworkFile:
        """The current network."""
        return network_file(self.name, self.shape, self.network, training_data=self.training_data)
