"""Thread counts of numerical libraries, which affect the order of summation and thus rounding."""

from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_info, threadpool_limits


@dataclass(frozen=True)
class Threads:
    """Thread counts of PyTorch and of NumPy's BLAS.

    Ray gives its workers one thread. With the counts of the process that chooses the codec, workers give exactly the
    results of that process.
    """

    torch: int
    blas: int

    @classmethod
    def here(cls) -> "Threads":
        """Thread counts of this process."""
        blas = [int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas"]
        return cls(torch.get_num_threads(), max(blas, default=1))

    @property
    def largest(self) -> int:
        """The larger of the two counts."""
        return max(self.torch, self.blas)

    def use(self) -> None:
        """Set the thread counts of this process."""
        torch.set_num_threads(self.torch)
        threadpool_limits(self.blas, "blas")
