"""SALAD: optimal transport of cells to clusters, and a token of the whole image.

Source: Izquierdo and Civera, "Optimal transport aggregation for visual place recognition", CVPR 2024;
https://github.com/serizba/salad. Berton and Masone, "MegaLoc: One retrieval to place them all", CVPR workshops 2025,
project its result.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Aggregator, DenseTokens

_ITERATIONS = 3


@dataclass(frozen=True)
class SaladSizes:
    """Sizes of SALAD.

    Args:
        clusters: number of clusters; inputs must have more cells.
        cluster_dimension: length of the vector of a cluster.
        token_dimension: length of the vector of the whole image.
        hidden: width of the hidden layers.
        projected: length of the projected descriptor; None without a projection.
    """

    clusters: int = 64
    cluster_dimension: int = 128
    token_dimension: int = 256
    hidden: int = 512
    projected: int | None = None

    @property
    def unprojected(self) -> int:
        """Length of the descriptor before the projection."""
        return self.token_dimension + self.clusters * self.cluster_dimension

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "SaladSizes":
        """Infer the sizes from the shapes of an aggregator's tensors; the default without tensors."""
        names = ("score.2.weight", "cluster_features.2.weight", "token_features.2.weight")
        if any(name not in state or state[name].ndim != 2 for name in names):
            return cls()
        clusters, cluster_dimension, token_dimension = (len(state[name]) for name in names)
        hidden = state[names[0]].shape[1]
        projected = len(state["linear.weight"]) if "linear.weight" in state else None
        return cls(clusters, cluster_dimension, token_dimension, hidden, projected)


class Transport(Aggregator):
    """Weighted sums of cell features per cluster, with weights by optimal transport, and a token of the image.

    Each cluster receives the mass of one cell; the rest goes to the dustbin. Subclasses compute the dustbin score of
    each cell. The result has unit norm.

    Args:
        dimension: width of the tokens.
        sizes: sizes of the layers.

    Raises:
        ModelError: when called on tokens without a class token, or of no more cells than there are clusters.
    """

    def __init__(self, dimension: int, sizes: SaladSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.token_features = _two_layers(dimension, sizes.hidden, sizes.token_dimension)
        self.cluster_features = _two_layers(dimension, sizes.hidden, sizes.cluster_dimension)
        self.score = _two_layers(dimension, sizes.hidden, sizes.clusters)
        if sizes.projected is not None:
            self.linear = nn.Linear(sizes.unprojected, sizes.projected)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Aggregate the tokens."""
        if tokens.class_token is None:
            raise ModelError("this aggregator needs a class token and this backbone has none; choose gem or mean")
        transported = self.cluster_features(tokens.patches).mT @ self.plan(tokens).mT
        clusters = normalize(transported, dim=1).flatten(1)
        whole = normalize(self.token_features(tokens.class_token), dim=1)
        descriptor = normalize(torch.cat([whole, clusters], dim=1), dim=1)
        return descriptor if self.sizes.projected is None else normalize(self.linear(descriptor), dim=1)

    def plan(self, tokens: DenseTokens) -> Float[Tensor, "batch clusters cells"]:
        """Share of each cell that goes to each cluster, in cells."""
        scores = torch.cat([self.score(tokens.patches).mT, self.dustbin(tokens)[:, None]], dim=1)
        cells, clusters = scores.shape[2], scores.shape[1] - 1
        if cells <= clusters:
            raise ModelError(
                f"{clusters} clusters need an input of more cells than {cells}; choose a larger input size"
            )
        return _sinkhorn(scores, cells - clusters)[:, :-1]

    @abstractmethod
    def dustbin(self, tokens: DenseTokens) -> Float[Tensor, "batch cells"]:
        """Score of the dustbin for each cell."""


class Salad(Transport):
    """SALAD with one learned score of the dustbin, and MegaLoc with its projection; see `Transport`."""

    def __init__(self, dimension: int, sizes: SaladSizes) -> None:
        super().__init__(dimension, sizes)
        self.dust_bin = nn.Parameter(torch.tensor(1.0))

    def dustbin(self, tokens: DenseTokens) -> Float[Tensor, "batch cells"]:
        """Score of the dustbin for each cell."""
        return self.dust_bin.expand(tokens.patches.shape[:2])


def _two_layers(dimension: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, out))


def _sinkhorn(scores: Float[Tensor, "batch rows cells"], last_mass: int) -> Float[Tensor, "batch rows cells"]:
    """Entropic optimal transport: columns sum to one, and so do rows, except that the last sums to `last_mass`.

    Three log-domain Sinkhorn iterations (Izquierdo and Civera 2024; Sarlin et al., "SuperGlue", CVPR 2020).
    """
    masses = functional.pad(scores.new_zeros(scores.shape[1] - 1), (0, 1), value=math.log(last_mass))[:, None]
    columns = scores.new_zeros(1, 1, 1)
    rows = columns
    for _ in range(_ITERATIONS):
        rows = masses - (scores + columns).logsumexp(2, keepdim=True)
        columns = -(scores + rows).logsumexp(1, keepdim=True)
    return (scores + rows + columns).exp()
