"""DHE network: a small transformer that predicts four point pairs from the correlation of two local maps.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024 (arXiv:2402.16086), section
"DHE network". Parameter names and results are those of the published implementation.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Grid, Size
from vpr_dhe.verification.names import DHE

HEAD_NAME = DHE
GRID = Grid(rows=24, columns=24)
INPUT_SIZE = Size(384, 384)
# The published origin is the top-left corner of the image (cell centres at 8 + 16 k), ours the centre of the top-left
# pixel (cell centres at 7.5 + 16 k).
_PUBLISHED_ORIGIN_PX = 0.5


class PointPairs(NamedTuple):
    """Four corresponding points (x, y) per pair, in pixels of `INPUT_SIZE`; pixel centres are integers."""

    query: Float[Tensor, "pairs 4 2"]
    candidate: Float[Tensor, "pairs 4 2"]


class DheHead(nn.Module):
    """DHE network, from the local maps of a query and a candidate to four point pairs.

    The published one is for `GRID`. Heads of other grids, of which 12 divides the number of cells, are for experiments.
    """

    def __init__(self, grid: Grid = GRID) -> None:
        super().__init__()
        self.grid, cells = grid, grid.rows * grid.columns
        self.pe = nn.Parameter(torch.zeros(1, cells, cells))
        self.encoder = _encoder(cells)
        self.encoder2 = _encoder(cells)
        self.linear = nn.Linear(cells * cells, 16)

    def forward(
        self,
        query: Float[Tensor, "#pairs cells dimension"],
        candidates: Float[Tensor, "#pairs cells dimension"],
    ) -> PointPairs:
        """Predict the point pairs from unit-norm maps of the grid's cells, row-major; a batch of one is broadcast."""
        refined = self.refined(query, candidates)
        with torch.autocast(refined.device.type, enabled=False):  # bfloat16 has too few bits for pixel coordinates
            return point_pairs(self.linear(refined.mT.flatten(1).to(self.linear.weight)))

    def refined(
        self, query: Float[Tensor, "#pairs cells dimension"], candidates: Float[Tensor, "#pairs cells dimension"]
    ) -> Float[Tensor, "pairs cells cells"]:
        """Sum of the outputs of both transformers for each cell of the candidates."""
        encoded = self.encoder(normalised_correlation(query, candidates, self.grid) + self.pe.mT)
        return self.encoder2(encoded) + encoded


def point_pairs(numbers: Float[Tensor, "pairs 16"]) -> PointPairs:
    """Convert outputs of the last layer, which are in the published frame, to point pairs."""
    points = numbers.unflatten(1, (8, 2)) - _PUBLISHED_ORIGIN_PX
    return PointPairs(points[:, :4], points[:, 4:])


class OnnxDheHead(nn.Module):
    """Exported DHE network, in single precision."""

    def __init__(self, session: OnnxSession) -> None:
        super().__init__()
        self._session = session

    def forward(
        self, query: Float[Tensor, "1 576 dimension"], candidates: Float[Tensor, "pairs 576 dimension"]
    ) -> PointPairs:
        """Predict the point pairs as `DheHead` does."""
        return PointPairs(*self._session(query, candidates))


def load_head(model: ModelFile) -> DheHead:
    """Load the head of a model file.

    Raises:
        ModelError: if the weights of the file's head are not exactly those of a DHE head.
    """
    with torch.device("meta"):  # saves drawing 28 million random numbers
        head = DheHead()
    try:
        head.load_state_dict({name: value.float() for name, value in model.part("head").items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"the head of model {model.name!r} is not a DHE head: {reason}; convert it again") from error
    return head


def _encoder(cells: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        d_model=cells, nhead=12, dim_feedforward=2048, dropout=0.0, activation="gelu", batch_first=True
    )
    return nn.TransformerEncoder(layer, num_layers=3, enable_nested_tensor=False)


def normalised_correlation(
    query: Float[Tensor, "#pairs cells dimension"],
    candidates: Float[Tensor, "#pairs cells dimension"],
    grid: Grid = GRID,
) -> Float[Tensor, "pairs cells cells"]:
    """Positive correlation of the candidate's cells (rows) with the query's (columns); rows have unit norm.

    As published, the candidate's cells are row-major and the query's are column-major.
    """
    column_major = query.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
    return functional.normalize(correlation_volume(column_major, candidates).relu(), dim=2)


def correlation_volume(
    a: Float[Tensor, "#pairs cells_a dimension"], b: Float[Tensor, "#pairs cells_b dimension"]
) -> Float[Tensor, "pairs cells_b cells_a"]:
    """Compute inner products of all cells of B (rows) with all cells of A (columns); a batch of one is broadcast."""
    return b @ a.mT
