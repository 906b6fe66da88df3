"""Stage `alto`: trains a registration network without labels, together with a modality-invariant encoder.

Two losses alternate: the first aligns the encoded images, with a frozen encoder; the second makes the encodings of
aligned pairs similar, with a frozen registration. Both are Barlow Twins, which does not collapse to constant encodings.
Here, one step computes both losses, each with a gradient only to its own weights, so the second uses the registration
from before the step.

Source: Song et al., "Unsupervised Homography Estimation on Multimodal Image Pair via Alternating Optimization" (AltO),
NeurIPS 2024: AdamW, 3e-4, one cycle, batches of 16.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import avg_pool2d

from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.registration.aligned import AlignedData
from vpr_dhe.training.registration.barlow_twins import barlow_twins
from vpr_dhe.training.registration.deformed_patches import PatchBatch
from vpr_dhe.training.registration.encoders import Encoder, build_loss_networks
from vpr_dhe.training.registration.registered_patches import Registered, bring_to_b
from vpr_dhe.training.registration.sequence_loss import weighted_sequence
from vpr_dhe.training.registration.stage import RegistrationStage, RegistrationTraining
from vpr_dhe.training.stage import Fact, StepLoss
from vpr_dhe.verification.estimators.cross_modal.alto import AltoEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings, build_registration

_CELL_PX = 4


@dataclass(frozen=True)
class AltoSettings:
    """Encoder and two ablations of the paper.

    Args:
        encoder: a ResNet of timm, by name, whose first layers are trained from random weights (published: ResNet-34),
            or `lite-vlad`, whose first layers start from their pretrained weights.
        alternation: whether each loss trains only its own networks; otherwise both train all.
        pooling: whether the modality loss compares averages over images; otherwise individual cells.
    """

    encoder: str = "resnet34"
    alternation: bool = True
    pooling: bool = True


class AltoStage(RegistrationStage):
    """Training without labels; other arguments as for `RegistrationStage`."""

    def __init__(
        self,
        network: RegistrationSettings,
        data: AlignedData,
        settings: RegistrationTraining,
        *,
        training_data: str,
        method: AltoSettings = AltoSettings(),
    ) -> None:
        if method.encoder == LITE_VLAD:
            training_data = f"{training_data}; encoder of the losses started from: {LITE_VLAD}"
        super().__init__(AltoEstimator.name, network, data, settings, training_data=training_data)
        with seeded(settings.seed):
            self.network = build_registration(network)
            self.encoder, self.projector = build_loss_networks(method.encoder)
        self._method = method
        self.facts: Mapping[str, Fact] = {**self.facts, **asdict(method)}

    @property
    def registration(self) -> RegistrationNetwork:
        """The only network that is saved."""
        return self.network

    def gradient_parts(self) -> Sequence[nn.Module]:
        """Networks trained by each loss."""
        if not self._method.alternation:
            return [self]
        return [self.network, nn.ModuleList([self.encoder, self.projector])]

    def forward(self, batch: PatchBatch) -> StepLoss:
        """Sum of both losses; the labels of the batch are used only for the logs."""
        estimates = self.network(batch.patches_a, batch.patches_b)
        geometry = self.geometry_loss(batch, estimates)
        last = estimates[-1]
        modality = self.modality_loss(batch, last.detach() if self._method.alternation else last)
        error_px = (last - batch.displacements).abs().mean().detach()
        scalars = {"geometry": geometry.detach(), "modality": modality.detach(), "last_l1_px": error_px}
        return StepLoss(geometry + modality, scalars)

    def geometry_loss(self, batch: PatchBatch, estimates: list[Float[Tensor, "pairs 4 2"]]) -> Float[Tensor, ""]:
        """Barlow Twins over the cells of each pair, after each iteration; trains the registration network."""
        with _frozen(self.encoder) if self._method.alternation else nullcontext(self.encoder) as encode:
            maps_b = encode(batch.patches_b)
            losses = []
            for estimate in estimates:
                registered = self._registered(batch, estimate)
                counted = _whole_cells(registered, _CELL_PX).flatten(1)
                losses.append(barlow_twins(_samples(encode(registered.patches)), _samples(maps_b), counted).mean())
        return weighted_sequence(losses, self.settings.decay)

    def modality_loss(self, batch: PatchBatch, estimate: Float[Tensor, "pairs 4 2"]) -> Float[Tensor, ""]:
        """Barlow Twins over the batch, on vectors of whole images; trains encoder and projector."""
        registered = self._registered(batch, estimate)
        # No mask: its outline would be in both images, and the encoder would learn that instead of their content.
        images = torch.cat([registered.patches, batch.patches_b])
        maps_a, maps_b = self.projector(self.encoder(images)).float().chunk(2)
        if self._method.pooling:
            vectors_a, vectors_b = (maps.mean(dim=(2, 3)).unsqueeze(0) for maps in (maps_a, maps_b))
            return barlow_twins(vectors_a, vectors_b).mean()
        samples_a, samples_b = (_samples(maps).flatten(0, 1).unsqueeze(0) for maps in (maps_a, maps_b))
        counted = _whole_cells(registered, 2 * _CELL_PX).flatten().unsqueeze(0)
        return barlow_twins(samples_a, samples_b, counted).mean()

    def _registered(self, batch: PatchBatch, estimate: Float[Tensor, "pairs 4 2"]) -> Registered:
        return bring_to_b(batch.patches_a, estimate, self.network.size)

    def estimate(self, batch: PatchBatch) -> Float[Tensor, "pairs 4 2"]:
        """Estimate of the last iteration."""
        return self.network(batch.patches_a, batch.patches_b)[-1]

    def model_file(self) -> NetworkFile:
        """The current registration network."""
        return network_file(self.name, self.shape, self.network, training_data=self.training_data)


@contextmanager
def _frozen(encoder: Encoder) -> Iterator[Callable[[Tensor], Tensor]]:
    """Context that yields the encoder as a function of images, with frozen weights and batch statistics."""
    # Copies of the buffers, because the other loss changes them before the gradients of this loss are computed.
    weights = {name: value.detach() for name, value in encoder.named_parameters()}
    statistics = {name: value.clone() for name, value in encoder.named_buffers()}
    was_training = encoder.training
    encoder.eval()
    try:
        yield lambda images: functional_call(encoder, {**weights, **statistics}, images)
    finally:
        encoder.train(was_training)


def _whole_cells(registered: Registered, cell_px: int) -> Bool[Tensor, "pairs rows columns"]:
    """Mask of the cells of B that A covers completely."""
    return avg_pool2d(registered.shown.float().unsqueeze(1), cell_px).squeeze(1) == 1


def _samples(maps: Float[Tensor, "pairs channels rows columns"]) -> Float[Tensor, "pairs cells channels"]:
    return maps.float().flatten(2).mT
