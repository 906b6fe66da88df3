"""Network of patch descriptors for two images, and its contrastive loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vpr_dhe.runtime.seeding import seeded

DIMENSION = 256
_CHANNELS = 3
# Keeps the gradient of a distance finite where it is 0.
_MIN_SQUARE = 1e-8


class PatchNetwork(nn.Module):
    """Two branches from 16 x 16 patches to descriptors; a pseudo-siamese network has two first layers.

    Source: Dong et al. 2018, section 3 (arXiv:1808.01424).
    """

    def __init__(self, *, pseudo_siamese: bool = False) -> None:
        super().__init__()
        self.first_a = nn.Conv2d(_CHANNELS, 32, 5)
        self.first_b = nn.Conv2d(_CHANNELS, 32, 5) if pseudo_siamese else None
        # Tanh is monotonic, so pooling first gives the same result with a quarter of the work.
        self.shared = nn.Sequential(
            nn.MaxPool2d(2), nn.Tanh(), nn.Conv2d(32, 64, 3), nn.Tanh(), nn.Flatten(), nn.Linear(1024, DIMENSION)
        )
        # On a CPU this halves the time of pooling.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(
        self, patches_a: Float[Tensor, "a 3 16 16"], patches_b: Float[Tensor, "b 3 16 16"]
    ) -> tuple[Float[Tensor, "a 256"], Float[Tensor, "b 256"]]:
        """Extract descriptors of patches of both images."""
        return self.extract(patches_a, second=False), self.extract(patches_b, second=True)

    def extract(self, patches: Float[Tensor, "patches 3 16 16"], *, second: bool) -> Float[Tensor, "patches 256"]:
        """Extract descriptors of patches of A or, if `second`, of B."""
        first_layer = self.first_b if second and self.first_b is not None else self.first_a
        return self.shared(first_layer(patches.contiguous(memory_format=torch.channels_last)))


def new_network(seed: int, *, pseudo_siamese: bool) -> PatchNetwork:
    """Make a network with random weights, without touching torch's global random state."""
    with seeded(seed):
        return PatchNetwork(pseudo_siamese=pseudo_siamese)


def squared_distances(
    a: Float[Tensor, "patches dimension"], b: Float[Tensor, "patches dimension"]
) -> Float[Tensor, " patches"]:
    """Squared Euclidean distances of corresponding descriptors."""
    return (a - b).square().sum(dim=-1)


def below_margin(squares: Float[Tensor, "*patches"], margin: float) -> Float[Tensor, "*patches"]:
    """Loss of negative pairs, whose descriptors should be at least a margin apart.

    Source: Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, equation 4.
    """
    return (margin - (squares + _MIN_SQUARE).sqrt()).clamp(min=0).square()


def mean_where(values: Float[Tensor, "*patches"], counted: Bool[Tensor, "*patches"]) -> Float[Tensor, ""]:
    """Mean of the counted values, 0 if there are none."""
    return (values * counted).sum() / counted.sum().clamp(min=1)
