"""A stage small enough to be trained in a moment: fit a line to points."""

from typing import NamedTuple

import torch
from torch import nn

from vpr_dhe.errors import ImageError
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Preprocessing
from vpr_dhe.training.stage import Batches, Stage, StepLoss, Turn, Validation

_LATER = Turn(10_000, 0, 1)


class Points(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


class LineBatches(Batches[Points]):
    def batch(self, turn):
        generator = torch.Generator().manual_seed(turn.step * turn.processes + turn.process)
        x = torch.rand(8, 5, generator=generator)
        return Points(x, x.sum(dim=1, keepdim=True) - 1)


class UnreadableBatches(LineBatches):
    """Batches of which one has an image that cannot be read.

    Here and not beside its test: worker processes find modules of this folder, which is on their path.
    """

    def batch(self, turn):
        if turn.step == 5:
            raise ImageError("photos/5.jpg: damaged or truncated image")
        return super().batch(turn)


class LineStage(Stage[Points]):
    def __init__(self, rate=0.05, broken_at=None):
        super().__init__()
        torch.manual_seed(0)
        # Dropout, because it shows whether random numbers go on where they stopped.
        self.line = nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 1))
        self.batches, self.facts = LineBatches(), {"stage": "line", "rate": rate}
        self.broken_at, self.steps_seen = broken_at, 0

    def optimizer(self):
        return torch.optim.Adam(self.line.parameters(), lr=self.facts["rate"])

    def learning_rate_factor(self, step):
        return 0.9 ** (step // 10)

    def forward(self, batch):
        self.steps_seen += 1
        if self.broken_at == self.steps_seen:
            raise KeyboardInterrupt
        loss = (self.line(batch.x) - batch.y).square().mean()
        return StepLoss(loss, {"twice": 2 * loss.detach()})

    def validate(self):
        x, y = LineBatches().batch(_LATER)
        error = float((self.line(x) - y).square().mean())
        return Validation(error, {"error": error})

    def model_file(self):
        black = Preprocessing(16, 16, "bilinear", False, (0.0,) * 3, (1.0,) * 3)
        tensors = {f"head.{name}": value.clone() for name, value in self.line.state_dict().items()}
        return ModelFile("line", Architecture("none", "none"), black, "CC0", "points", tensors)
