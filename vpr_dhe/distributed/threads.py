"""Threads of numerical libraries: with another number of them, sums are rounded in another order."""

from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_info, threadpool_limits


@dataclass(frozen=True)
class Threads:
    """How many threads PyTorch and the BLAS of NumPy use.

    Ray gives its workers one thread. Where theirs are as many as those of the process that settles the codec, the
    index gets the digits that this process would give it alone.
    """

    torch: int
    blas: int

    @classmethod
    def here(cls) -> "Threads":
        """What this process uses."""
        blas = [int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas"]
        return cls(torch.get_num_threads(), max(blas, default=1))

    @property
    def most(self) -> int:
        """The larger of the two."""
        return max(self.torch, self.blas)

    def use(self) -> None:
        """Make this process use so many, from now on."""
        torch.set_num_threads(self.torch)
        threadpool_limits(self.blas, "blas")
