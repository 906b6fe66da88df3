"""The stage `iterative`: a registration network by the corner errors of known homographies.

Source: Cao et al., "Iterative Deep Homography Estimation", CVPR 2022: AdamW, one cycle, batches of 16,
 L1 of the displacements with weights 0.85 towards earlier iterations.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.estimators.iterative import IterativeEstimator
from vpr_dhe.estimators.registration.networks import RegistrationSettings, build_registration
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.training.deformed_patches import PatchBatch
from vpr_dhe.training.losses.sequence import displacement_loss
from vpr_dhe.training.sources.aligned import AlignedData
from vpr_dhe.training.stages.base import StepLoss
from vpr_dhe.training.stages.registration import RegistrationStage, RegistrationTraining


class IterativeStage(RegistrationStage):
    """Trains with labels; the arguments are those of `RegistrationStage`."""

    def __init__(
        self, network: RegistrationSettings, data: AlignedData, settings: RegistrationTraining, *, training_data: str
    ) -> None:
        super().__init__(IterativeEstimator.name, network, data, settings, training_data=training_data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = build_registration(network)

    def forward(self, batch: PatchBatch) -> StepLoss:
        """Error of the displacements after each iteration."""
        estimates = self.network(batch.patches_a, batch.patches_b)
        loss = displacement_loss(estimates, batch.displacements, self.settings.decay)
        return StepLoss(loss, {"last_l1_px": (estimates[-1] - batch.displacements).abs().mean().detach()})

    def estimate(self, batch: PatchBatch) -> Float[Tensor, "pairs 4 2"]:
        """The last iteration's."""
        return self.network(batch.patches_a, batch.patches_b)[-1]

    def model_file(self) -> NetworkFile:
        """The network as it is now."""
        return network_file(self.name, self.shape, self.network, training_data=self.training_data)
