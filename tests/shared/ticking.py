"""Time that passes by work instead of by the clock on the wall."""

from vpr_dhe.records import without_progress
from vpr_dhe.training.deadline import Deadline
from vpr_dhe.training.preparation import Preparation


class Ticks:
    """Clock that goes on by a minute each time it is read."""

    def __init__(self):
        self.minutes = -1

    def __call__(self):
        self.minutes += 1
        return 60.0 * self.minutes


def stopping_after(items, start_progress=without_progress):
    """Preparation whose time is up after so many items, or steps of the loop."""
    return Preparation(Deadline(float(items), clock=Ticks()), start_progress)
