"""What a stage of training is: it knows its data, its loss and its model, and nothing of the loop that drives it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

Batch = TypeVar("Batch")
Fact: TypeAlias = str | int | float | bool | None


@runtime_checkable
class Savable(Protocol):
    """A model file or a network file."""

    def save(self, path: Path) -> None:
        """Write it."""
        ...


class Turn(NamedTuple):
    """Whose batch it is: of which step, counted from 0, and of which of the processes that train together."""

    step: int
    process: int
    processes: int


class StepLoss(NamedTuple):
    """What one batch costs; `scalars` are for the logs."""

    loss: Float[Tensor, ""]
    scalars: dict[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """How good a stage is on data it does not learn from: the lower `score` the better; `scalars` are for the logs."""

    score: float
    scalars: dict[str, float]


class Batches(ABC, Generic[Batch]):
    """Where a stage's batches come from. Loading processes are given copies, so it is small and can be pickled."""

    @abstractmethod
    def batch(self, turn: Turn) -> Batch:
        """Make a batch, which depends on the turn alone: named tuples of tensors on the CPU."""


class Stage(nn.Module, ABC, Generic[Batch]):
    """One stage of training, as a module whose forward pass is its loss.

    `batches` are what it learns from. `facts` are all settings that decide what comes out of it: a run is only
    continued under the same ones. All state that training changes is in `state_dict()`.
    """

    batches: Batches[Batch]
    facts: Mapping[str, Fact]

    @abstractmethod
    def optimizer(self) -> Optimizer:
        """Make an optimiser of what is to be trained, with the learning rates of step 0."""

    def gradient_parts(self) -> Sequence[nn.Module]:
        """Parts whose gradients are scaled down apart from each other, where losses of their own teach them."""
        return [self]

    def learning_rate_factor(self, step: int) -> float:  # noqa: ARG002 (constant unless a stage says otherwise)
        """By what the learning rates of step 0 are multiplied at a step."""
        return 1.0

    def steps_per_round(self, processes: int) -> int | None:  # noqa: ARG002 (only stages with rounds ask)
        """After how many steps the stage chooses anew what to learn from; None where it never does."""
        return None

    def begin_round(self, step: int) -> None:
        """Choose what `batches` gives from this step on; what is chosen is the module's extra state."""

    @abstractmethod
    def forward(self, batch: Batch) -> StepLoss:
        """The loss of a batch on the stage's device; always finite, and with a graph to all that is trained."""

    @abstractmethod
    def validate(self) -> Validation:
        """Measure on held-out data, without gradients."""

    @abstractmethod
    def model_file(self) -> Savable:
        """The model, or the network of a method, as it is now: ready to be used."""
