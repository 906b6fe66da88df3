"""SSHNet: a transfer network translates A to the modality of B, then a registration network aligns the two.

Source: Yu et al., "SSHNet: Unsupervised Cross-modal Homography Estimation via Problem Reformulation and Split
Optimization", 2024 (arXiv:2409.17993).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.estimator import RegistrationEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings
from vpr_dhe.verification.estimators.cross_modal.registration.transfer import build_transfer
from vpr_dhe.verification.estimators.resources import Resources

OWN_FEATURES = "features of the registration network, and gradients"
VGG_FEATURES = "features of VGG-16"


@dataclass(frozen=True)
class SshnetSettings(RegistrationSettings):
    """Settings of the registration network, always the iterative one, and of the transfer network before it.

    `perceptual` names the features of the perceptual loss in training; it has no effect on inference.
    """

    transfer: str = "swin"
    transfer_width: int = 16
    perceptual: str = OWN_FEATURES


class SshnetNetwork(RegistrationNetwork):
    """Network that translates A to the modality of B, then registers the two."""

    def __init__(self, settings: SshnetSettings) -> None:
        super().__init__()
        self.registration = settings.iterative()
        self.transfer = build_transfer(settings.transfer, settings.transfer_width)
        self.size = self.registration.size

    def forward(
        self, a: Float[Tensor, "pairs 3 height width"], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements after each iteration of the registration."""
        return self.registration(self.transfer(a).float(), b)


class SshnetEstimator(RegistrationEstimator):
    """Estimates with a transfer and a registration network."""

    name = "sshnet"

    @classmethod
    def build_network(cls, file: NetworkFile) -> RegistrationNetwork:
        """Build both networks without loading their weights."""
        return SshnetNetwork(file.settings_as(SshnetSettings))


class DistilledSshnetEstimator(RegistrationEstimator):
    """Estimates with a registration network distilled from both networks of SSHNet."""

    name = "sshnet-d"


def build(name: str, resources: Resources) -> RegistrationEstimator:
    """Build one of the estimators with the networks, or the network, of a file."""
    estimator = SshnetEstimator if name == SshnetEstimator.name else DistilledSshnetEstimator
    return estimator.from_file(resources.networks[name], resources.device)
