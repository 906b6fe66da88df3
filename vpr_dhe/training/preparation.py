"""Preparation of training data, with progress and within the time limit of the run."""

from vpr_dhe.errors import TimeLimitError
from vpr_dhe.records import Progress, StartProgress, without_progress
from vpr_dhe.training.deadline import Deadline


class Preparation:
    """Progress and deadline of preparing data, such as a round of pairs, which may take much longer than a step.

    Args:
        deadline: deadline of the whole run, including preparation.
        start_progress: called with the name and number of the items of each part.
    """

    def __init__(self, deadline: Deadline | None = None, start_progress: StartProgress = without_progress) -> None:
        self.deadline, self._start_progress = deadline or Deadline(), start_progress

    def begin(self, items: str, total: int) -> Progress:
        """Begin a part of `total` items; call the returned function with the number of items just done.

        Returns:
            A function that raises TimeLimitError if the time limit ends before the last item.
        """
        progress, done = self._start_progress(items, total), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(count)
            if done < total and self.deadline.is_over:
                minutes = self.deadline.minutes
                raise TimeLimitError(f"the time limit of {minutes:g} min ended at {done:,} of {total:,} {items}")

        return advance
