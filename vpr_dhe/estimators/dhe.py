"""Deep homography estimation: a small transformer reads four point pairs off the correlation of two local maps.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024 (arXiv:2402.16086), section
"DHE network". Parameters bear the published names, and the results agree with the published implementation's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError, VerifierError
from vpr_dhe.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.geometry.coordinates import homographies_between_originals
from vpr_dhe.geometry.correlation import correlation_volume
from vpr_dhe.geometry.homography import four_point_homography, is_usable
from vpr_dhe.models.exported_model import HEAD, ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.processor import has_bfloat16_products
from vpr_dhe.records import Features, Frame, Grid, Size

HEAD_NAME = "dhe"
GRID = Grid(rows=24, columns=24)
INPUT_SIZE = Size(384, 384)
_CELLS = GRID.rows * GRID.columns
# The published points have their origin at the top-left corner of the image (its cells are centred at 8 + 16 k);
# ours is the centre of the top-left pixel (cells at 7.5 + 16 k).
_PUBLISHED_ORIGIN_PX = 0.5


class PointPairs(NamedTuple):
    """Four corresponding points (x, y) per pair, in pixels of `INPUT_SIZE`, pixel centres at whole numbers."""

    query: Float[Tensor, "pairs 4 2"]
    candidate: Float[Tensor, "pairs 4 2"]


class DheHead(nn.Module):
    """The DHE network: from the local maps of a query and a candidate to four point pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.pe = nn.Parameter(torch.zeros(1, _CELLS, _CELLS))
        self.encoder = _encoder()
        self.encoder2 = _encoder()
        self.linear = nn.Linear(_CELLS * _CELLS, 16)

    def forward(
        self,
        query: Float[Tensor, "#pairs 576 dimension"],
        candidates: Float[Tensor, "#pairs 576 dimension"],
    ) -> PointPairs:
        """Predict the point pairs from unit-norm maps of 24 x 24 cells, row-major; a batch of one is broadcast."""
        tokens = _normalised_correlation(query, candidates) + self.pe.mT
        encoded = self.encoder(tokens)
        refined = self.encoder2(encoded) + encoded
        with torch.autocast(refined.device.type, enabled=False):  # pixels need more than the eight bits of bfloat16
            points = (
                self.linear(refined.mT.flatten(1).to(self.linear.weight)).unflatten(1, (8, 2)) - _PUBLISHED_ORIGIN_PX
            )
        return PointPairs(points[:, :4], points[:, 4:])


class OnnxDheHead(nn.Module):
    """A DHE network that was exported; it runs in full precision."""

    def __init__(self, session: OnnxSession) -> None:
        super().__init__()
        self._session = session

    def forward(
        self, query: Float[Tensor, "1 576 dimension"], candidates: Float[Tensor, "pairs 576 dimension"]
    ) -> PointPairs:
        """Predict what the network predicts in torch."""
        return PointPairs(*self._session(query, candidates))


def load_head(model: ModelFile) -> DheHead:
    """Make the head of a model file.

    Raises:
        ModelError: if the file's head is not a DHE head, every weight of it.
    """
    with torch.device("meta"):  # 28 million random numbers need not be drawn to be replaced
        head = DheHead()
    try:
        head.load_state_dict({name: value.float() for name, value in model.part("head").items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"the head of model {model.name!r} is no DHE head: {reason}; convert it again") from error
    return head


class DheEstimator(HomographyEstimator):
    """Estimates homographies with a DHE head, `batch_size` candidates at a time.

    The head moves to the device of the query's local map, and its transformers multiply in bfloat16 where the device
    is faster so, unless `full_precision`. A candidate takes about 35 MB while it is in the batch.
    """

    name = "dhe"

    def __init__(self, head: DheHead | OnnxDheHead, *, batch_size: int = 16, full_precision: bool = False) -> None:
        self.head = head.eval()
        self.batch_size, self.full_precision = batch_size, full_precision

    @classmethod
    def from_model(cls, model: ModelFile | ExportedModel | None) -> "DheEstimator":
        """Take the head of a model file or of an export.

        Raises:
            VerifierError: if there is none.
            ModelError: if its weights are not those of a DHE head, or are damaged.
        """
        if model is None or model.architecture.head != HEAD_NAME:
            found = "no model file is" if model is None else f"no DHE head is in model {model.name!r}, which is"
            raise VerifierError(f"{found} at hand; import DHE-VPR weights, or use another verifier such as magsac")
        return cls(OnnxDheHead(model.session(HEAD)) if isinstance(model, ExportedModel) else load_head(model))

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate from its features.

        Raises:
            VerifierError: if a local map does not have 24 x 24 cells.
        """
        if not candidates:
            return Homographies(torch.empty(0, 3, 3, dtype=torch.float64), torch.empty(0, dtype=torch.bool))
        points = self._predict(query, candidates)
        between_inputs = four_point_homography(points.query, points.candidate)
        # The head sees cells and no pixels: its points refer to its own frame, whatever the extractor's input size.
        query_frame, *candidate_frames = [Frame(view.frame.image_size, INPUT_SIZE) for view in (query, *candidates)]
        between_originals = homographies_between_originals(between_inputs, query_frame, candidate_frames)
        return Homographies.of(between_originals, is_usable(between_originals))

    def _predict(self, query: View, candidates: Sequence[View]) -> PointPairs:
        """Run the head; the device is waited for once, at the end."""
        query_map = _local_map(query.features)[None].float()
        device = query_map.device
        head = self.head.to(device)
        halved = has_bfloat16_products(device) and not self.full_precision
        parts = []
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=halved):
            for start in range(0, len(candidates), self.batch_size):
                batch = candidates[start : start + self.batch_size]
                maps = torch.stack([_local_map(view.features).to(query_map) for view in batch])
                parts.append(head(query_map, maps))
        return PointPairs(*(torch.cat(side).cpu() for side in zip(*parts, strict=True)))


def _encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        d_model=_CELLS, nhead=12, dim_feedforward=2048, dropout=0.0, activation="gelu", batch_first=True
    )
    return nn.TransformerEncoder(layer, num_layers=3, enable_nested_tensor=False)


def _normalised_correlation(
    query: Float[Tensor, "#pairs 576 dimension"], candidates: Float[Tensor, "#pairs 576 dimension"]
) -> Float[Tensor, "pairs 576 576"]:
    """The positive correlation of the candidate's cells (rows) with the query's, of unit norm over the query's.

    As published, the candidate's cells are row-major and the query's are column-major.
    """
    column_major = query.unflatten(1, GRID).transpose(1, 2).flatten(1, 2)
    return functional.normalize(correlation_volume(column_major, candidates).relu(), dim=2)


def _local_map(features: Features) -> Float[Tensor, "576 dimension"]:
    if features.grid != GRID:
        raise VerifierError(
            f"the DHE head needs local maps of {GRID.rows} x {GRID.columns} cells, and this model makes "
            f"{features.grid.rows} x {features.grid.columns}; use a model with such a grid (CCT at 384 x 384 pixels), "
            "or another verifier, such as magsac"
        )
    return features.local_map
