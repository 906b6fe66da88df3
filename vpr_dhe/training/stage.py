"""Interface of a training stage: its data, loss and model, independent of the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vpr_dhe.training.preparation import Preparation

Batch = TypeVar("Batch")
Fact: TypeAlias = str | int | float | bool | None


@runtime_checkable
class Savable(Protocol):
    """Model file or network file."""

    def save(self, path: Path) -> None:
        """Write the file."""
        ...


class Turn(NamedTuple):
    """Index of a batch: its step, from 0, and its training process."""

    step: int
    process: int
    processes: int


class StepLoss(NamedTuple):
    """Loss of one batch; `scalars` are for the logs."""

    loss: Float[Tensor, ""]
    scalars: dict[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """Quality of a stage on held-out data: a lower `score` is better; `scalars` are logged."""

    score: float
    scalars: dict[str, float]


class Batches(ABC, Generic[Batch]):
    """Batches of a stage. Loading processes get copies, so they must be small and picklable."""

    @abstractmethod
    def batch(self, turn: Turn) -> Batch:
        """Make a batch, determined by the turn: named tuples of tensors on the CPU."""


class Stage(nn.Module, ABC, Generic[Batch]):
    """Stage of training, as a module whose forward pass computes the loss.

    `batches` is its training data. `facts` are all settings that affect the result: a run is resumed only with the same
    facts. All state that training changes is in `state_dict()`. `begin_round` and `validate` report the items that they
    prepare to `preparation`, which may raise TimeLimitError; they then leave the stage unchanged.
    """

    batches: Batches[Batch]
    facts: Mapping[str, Fact]
    preparation: Preparation = Preparation()

    @abstractmethod
    def optimizer(self) -> Optimizer:
        """Make the optimiser of the trained parameters, with the learning rates of step 0."""

    def gradient_parts(self) -> Sequence[nn.Module]:
        """Parts that separate losses train, whose gradients are clipped separately."""
        return [self]

    def learning_rate_factor(self, step: int) -> float:  # noqa: ARG002 (constant unless a stage says otherwise)
        """Factor of the initial learning rates at a step."""
        return 1.0

    def steps_per_round(self, processes: int) -> int | None:  # noqa: ARG002 (only stages with rounds ask)
        """Number of steps after which the stage selects new training data; None if it never does."""
        return None

    def begin_round(self, step: int) -> None:
        """Select the data of `batches` from this step on; the selection is the module's extra state."""

    @abstractmethod
    def forward(self, batch: Batch) -> StepLoss:
        """Loss of a batch on the stage's device: finite, and differentiable with respect to all trained parameters."""

    @abstractmethod
    def validate(self) -> Validation:
        """Measure the quality on held-out data, without gradients."""

    @abstractmethod
    def model_file(self) -> Savable:
        """Return the current model file or network file."""
