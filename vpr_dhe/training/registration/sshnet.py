"""Stage `sshnet`: trains registration and modality transfer together, without labels.

The registration network is trained on images of one modality, B and A transferred to B's modality, each paired with
itself by known random deformations. The transfer network is trained to translate A to B's modality, with the two
aligned by the current, frozen registration. Each of the two losses has a gradient only to its own network.

Source: Yu et al., "SSHNet", 2024 (arXiv:2409.17993): L1 weighted by 0.8 per earlier iteration, perceptual loss, cosine
of the registration's features, weights 1:1:1, AdamW, 4e-4, one cycle, batches of 16. Without weights of VGG, the
perceptual loss uses the registration's own features and gradients, which is an addition.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.registration.aligned import AlignedData
from vpr_dhe.training.registration.deformed_patches import (
    PatchBatch,
    deformed_patches,
    middle_patches,
    random_displacements,
)
from vpr_dhe.training.registration.perceptual import PerceptualLoss, VggLoss, feature_difference, gradient_dissimilarity
from vpr_dhe.training.registration.registered_patches import bring_to_b
from vpr_dhe.training.registration.sequence_loss import displacement_loss
from vpr_dhe.training.registration.stage import RegistrationStage, RegistrationTraining
from vpr_dhe.training.stage import Fact, StepLoss
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.sshnet import (
    OWN_FEATURES,
    VGG_FEATURES,
    SshnetEstimator,
    SshnetNetwork,
    SshnetSettings,
)


class SshnetStage(RegistrationStage):
    """Training of both networks without labels.

    Args:
        network: shapes of both networks; `perceptual` is overwritten.
        data: see `RegistrationStage`.
        settings: see `RegistrationStage`; the published `decay` is 0.8.
        training_data: see `RegistrationStage`.
        vgg: file of VGG-16's weights, for the published perceptual loss.
        split: whether each loss trains only its own network; otherwise, an ablation of the paper, both train both.

    Raises:
        ModelError: if the file contains something else.
    """

    shape: SshnetSettings

    def __init__(
        self,
        network: SshnetSettings,
        data: AlignedData,
        settings: RegistrationTraining,
        *,
        training_data: str,
        vgg: Path | None = None,
        split: bool = True,
    ) -> None:
        network = replace(network, perceptual=OWN_FEATURES if vgg is None else VGG_FEATURES)
        super().__init__(SshnetEstimator.name, network, data, settings, training_data=training_data)
        # In a tuple, because VGG is neither trained nor part of the state.
        self._vgg: tuple[PerceptualLoss, ...] = () if vgg is None else (VggLoss(vgg),)
        with seeded(settings.seed):
            self.network = SshnetNetwork(network)
        self._split = split
        self.facts: Mapping[str, Fact] = {**self.facts, "split": split}

    @property
    def registration(self) -> RegistrationNetwork:
        """The network that registers translated images."""
        return self.network.registration

    def gradient_parts(self) -> Sequence[nn.Module]:
        """Networks trained by each loss."""
        if not self._split:
            return [self]
        return [self.network.registration, self.network.transfer]

    def forward(self, batch: PatchBatch) -> StepLoss:
        """Sum of both losses; the labels of the batch are not used."""
        repainted = self.network.transfer(batch.patches_a).float()
        registration = self.registration_loss(batch)
        perceptual, features = self.transfer_losses(repainted, batch)
        scalars = {
            "registration": registration.detach(),
            "perceptual": perceptual.detach(),
            "features": features.detach(),
        }
        return StepLoss(registration + perceptual + features, scalars)

    def registration_loss(self, batch: PatchBatch) -> Float[Tensor, ""]:
        """Error of the displacements of B and of A translated; trains the registration network."""
        with torch.set_grad_enabled(not self._split):
            repainted = self.network.transfer(batch.images_a).float()
        return self._error_within(repainted) + self._error_within(batch.images_b)

    def _error_within(self, photos: Float[Tensor, "pairs 3 height width"]) -> Float[Tensor, ""]:
        drawn = random_displacements(len(photos), self.shape.side_px, photos.device)
        estimates = self.network.registration(deformed_patches(photos, drawn), middle_patches(photos))
        return displacement_loss(estimates, drawn, self.settings.decay)

    def transfer_losses(
        self, repainted: Float[Tensor, "pairs 3 height width"], batch: PatchBatch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Perceptual loss and feature loss between B and A translated and registered; trains the transfer network."""
        with torch.set_grad_enabled(not self._split):
            estimate = self.network.registration(repainted, batch.patches_b)[-1]
        brought, shown = bring_to_b(repainted, estimate, self.network.size)
        with _frozen(self.network.registration) if self._split else nullcontext():
            shallow, deep = self.network.registration.depths(torch.cat([brought, batch.patches_b]))
        features = feature_difference(*_halves(deep), shown)
        if self._vgg:
            return self._vgg[0].to(brought.device)(brought, batch.patches_b, shown), features
        own = feature_difference(*_halves(shallow), shown)
        return own + gradient_dissimilarity(brought, batch.patches_b, shown), features

    def estimate(self, batch: PatchBatch) -> Float[Tensor, "pairs 4 2"]:
        """Estimate of the last iteration, from A translated."""
        return self.network(batch.patches_a, batch.patches_b)[-1]

    def model_file(self) -> NetworkFile:
        """The current networks."""
        return network_file(self.name, self.shape, self.network, training_data=self.training_data)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Disable gradients to the network's weights, but not to its input."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


def _halves(maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of the first and of the second half of a batch."""
    first, second = zip(*(one.chunk(2) for one in maps), strict=True)
    return list(first), list(second)
