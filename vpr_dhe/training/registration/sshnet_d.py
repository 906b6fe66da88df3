"""Stage `sshnet-d`: distils transfer and registration into a single registration network.

Source: Yu et al., "SSHNet", 2024 (arXiv:2409.17993): L1 to the teacher's last estimate.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.models.weights_file import tensors_digest
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.registration.aligned import AlignedData
from vpr_dhe.training.registration.deformed_patches import PatchBatch
from vpr_dhe.training.registration.sequence_loss import displacement_loss
from vpr_dhe.training.registration.stage import RegistrationStage, RegistrationTraining
from vpr_dhe.training.stage import Fact, StepLoss
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings, build_registration
from vpr_dhe.verification.estimators.cross_modal.sshnet import DistilledSshnetEstimator, SshnetEstimator


class DistilledSshnetStage(RegistrationStage):
    """Training of the student on original A and B, without labels.

    Args:
        network: shape of the student.
        data: see `RegistrationStage`.
        settings: see `RegistrationStage`.
        training_data: see `RegistrationStage`; the teacher's is appended.
        teacher: network file of `sshnet`, for patches of the same side.

    Raises:
        ModelError: if the teacher is of another method, or for patches of another side.
    """

    def __init__(
        self,
        network: RegistrationSettings,
        data: AlignedData,
        settings: RegistrationTraining,
        *,
        training_data: str,
        teacher: NetworkFile,
    ) -> None:
        training_data = f"{training_data}; teacher: {teacher.training_data}"
        super().__init__(DistilledSshnetEstimator.name, network, data, settings, training_data=training_data)
        if teacher.method != SshnetEstimator.name:
            raise ModelError(f"the teacher is a network of {teacher.method}; give one of {SshnetEstimator.name}")
        # In a tuple, because the teacher is neither trained nor part of the state.
        self._teacher = (SshnetEstimator.from_file(teacher).network,)
        if (side_px := self._teacher[0].size.width) != network.side_px:
            raise ModelError(
                f"patches of the teacher have {side_px} px, those of the student {network.side_px}; expected the same"
            )
        with seeded(settings.seed):
            self.network = build_registration(network)
        self.facts: Mapping[str, Fact] = {**self.facts, "teacher": tensors_digest(teacher.tensors)}

    @property
    def registration(self) -> RegistrationNetwork:
        """The student."""
        return self.network

    def forward(self, batch: PatchBatch) -> StepLoss:
        """Distance of each estimate from the teacher's last; the labels of the batch are not used."""
        with torch.no_grad():
            target = self._teacher[0].to(batch.patches_a.device)(batch.patches_a, batch.patches_b)[-1]
        estimates = self.network(batch.patches_a, batch.patches_b)
        loss = displacement_loss(estimates, target, self.settings.decay)
        return StepLoss(loss, {"last_l1_to_teacher_px": (estimates[-1] - target).abs().mean().detach()})

    def estimate(self, batch: PatchBatch) -> Float[Tensor, "pairs 4 2"]:
        """The student's estimate of the last iteration."""
        return self.network(batch.patches_a, batch.patches_b)[-1]

    def model_file(self) -> NetworkFile:
        """The current student."""
        return network_file(self.name, self.shape, self.network, training_data=self.training_data)
