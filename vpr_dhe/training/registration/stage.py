"""Base of the stages of registration networks: data, optimiser, and validation by corner error."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from statistics import fmean, median

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.models.weights_file import tensors_digest
from vpr_dhe.training.devices import to_device
from vpr_dhe.training.registration.aligned import AlignedData
from vpr_dhe.training.registration.deformed_patches import PatchBatch, PatchBatches
from vpr_dhe.training.run_folder import network_facts
from vpr_dhe.training.schedules import one_cycle
from vpr_dhe.training.sources.base import Draws
from vpr_dhe.training.stage import Fact, Stage, Validation
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeOptions
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings


@dataclass(frozen=True)
class RegistrationTraining:
    """Hyperparameters of registration stages.

    Args:
        steps: length of the learning rate schedule.
        batch_size: pairs per step and process.
        learning_rate: peak learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        decay: weight of the loss of an estimate relative to the next one; see `weighted_sequence`.
        seed: seed of initial weights, deformations, and the order of the data.
        validation_pairs: maximum number of validation pairs.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 4e-4
    weight_decay: float = 1e-5
    decay: float = 0.85
    seed: int = 0
    validation_pairs: int = 64


class RegistrationStage(Stage[PatchBatch]):
    """Training of a registration network on deformed patches of aligned images.

    Models are selected by the mean corner error (MACE) of held-out pairs with known deformations; test pairs are
    separate.

    Args:
        name: name of the method.
        network: shape of the network.
        data: pairs for training and validation.
        settings: hyperparameters.
        training_data: images and their licences, for the network file.
    """

    def __init__(
        self,
        name: str,
        network: RegistrationSettings,
        data: AlignedData,
        settings: RegistrationTraining,
        *,
        training_data: str,
    ) -> None:
        super().__init__()
        self.name, self.shape, self.settings, self.training_data = name, network, settings, training_data
        self.batches = PatchBatches(Draws(data.training, settings.seed), network.side_px, settings.batch_size)
        held_out = Draws(data.validation, settings.seed + 1)
        self._held_out = PatchBatches(held_out, network.side_px, settings.batch_size)
        self._held_out_pairs = min(settings.validation_pairs, len(data.validation))
        self._validation: list[PatchBatch] | None = None
        self.facts: Mapping[str, Fact] = {
            "stage": name,
            "data": data.training.description,
            "validation": data.validation.description,
            **network_facts(network, IterativeOptions),
            **asdict(settings),
        }

    @property
    @abstractmethod
    def registration(self) -> RegistrationNetwork:
        """The registration network that is trained."""

    def start_from(self, file: NetworkFile) -> None:
        """Start from a trained registration network instead of random weights.

        Raises:
            ModelError: if the file holds a network of another shape.
        """
        shape = {one.name: getattr(self.shape, one.name) for one in fields(RegistrationSettings)}
        given = asdict(IterativeOptions()) | dict(file.settings)  # files of earlier versions lack the options
        if given != shape:
            different = [name for name in {**given, **shape} if given.get(name) != shape.get(name)]
            raise ModelError(
                f"the network to start from is of the method {file.method} and has "
                f"{ {name: given.get(name) for name in different} }; expected "
                f"{ {name: shape.get(name) for name in different} }: change the options to fit, or give another file"
            )
        file.load_into(self.registration)
        self.training_data = f"{self.training_data}; started from: {file.training_data}"
        self.facts = {**self.facts, "start": tensors_digest(file.tensors)}

    @abstractmethod
    def estimate(self, batch: PatchBatch) -> Float[Tensor, "pairs 4 2"]:
        """Estimate for the patches of a batch, as at inference."""

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over all trained parameters."""
        settings = self.settings
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def learning_rate_factor(self, step: int) -> float:
        """One cycle over the whole run."""
        return one_cycle(step, self.settings.steps)

    def validate(self) -> Validation:
        """Mean and median corner error of held-out pairs, in pixels of the patches."""
        if self._validation is None:
            self._validation = list(self._deformed())
        device = next(self.parameters()).device
        errors_px = [
            error
            for batch in self._validation
            for error in _corner_errors_px(self.estimate(to_device(batch, device)), batch.displacements).tolist()
        ]
        scalars = {"mace_px": fmean(errors_px), "median_corner_error_px": median(errors_px)}
        return Validation(scalars["mace_px"], scalars)

    def _deformed(self) -> Iterator[PatchBatch]:
        advance = self.preparation.begin("held-out pairs", self._held_out_pairs)
        for first in range(0, self._held_out_pairs, self.settings.batch_size):
            numbers = range(first, min(first + self.settings.batch_size, self._held_out_pairs))
            yield self._held_out.of(numbers)
            advance(len(numbers))


def _corner_errors_px(
    estimate: Float[Tensor, "pairs 4 2"], truth: Float[Tensor, "pairs 4 2"]
) -> Float[Tensor, " pairs"]:
    return torch.linalg.vector_norm(estimate.cpu() - truth, dim=2).mean(dim=1)
