"""Estimator of homographies by the DHE network, batched over candidates.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024 (arXiv:2402.16086).
"""

from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import VerifierError
from vpr_dhe.geometry.coordinates import homographies_between_originals
from vpr_dhe.geometry.homography import four_point_homography, is_usable
from vpr_dhe.models.exported_model import HEAD, ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Features, Frame
from vpr_dhe.runtime.choices import FP32, Precision
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.dhe.network import (
    GRID,
    HEAD_NAME,
    INPUT_SIZE,
    DheHead,
    OnnxDheHead,
    PointPairs,
    load_head,
)
from vpr_dhe.verification.estimators.dhe.predictors import ParallelHead, Predictor, predictor, require_precision
from vpr_dhe.verification.estimators.resources import Resources

# Enough that few threads wait for the last one.
_CANDIDATES_PER_THREAD = 4


class DheEstimator(HomographyEstimator):
    """Estimates homographies with a DHE head, at least `batch_size` candidates at a time.

    The head moves to the device of the query's local map. Its transformers multiply in `precision`. A
    candidate takes about 35 MB while it is in the batch. On a CPU in bf16 or int8 it takes 4 MB, plus 10 MB per thread;
    the weights are copied.
    """

    name = "dhe"

    def __init__(self, head: DheHead | OnnxDheHead, *, batch_size: int = 16, precision: Precision = FP32) -> None:
        self.head = head.eval()
        self.batch_size = batch_size
        self.precision: Precision = precision
        self._predictors: dict[torch.device, Predictor] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[Callable[[], "DheEstimator"], tuple[()]]:
        """Pickle the head and the settings, as for the actors of shards; predictors are made again."""
        return partial(DheEstimator, self.head, batch_size=self.batch_size, precision=self.precision), ()

    @classmethod
    def from_model(cls, model: ModelFile | ExportedModel | None, precision: Precision = FP32) -> "DheEstimator":
        """Load the head of a model file, or of an export, whose precision is fixed.

        Raises:
            VerifierError: if there is no head, or another precision than fp32 is asked of an export.
            ModelError: if the weights are damaged or not those of a DHE head.
        """
        if model is None or model.architecture.head != HEAD_NAME:
            found = "there is no model file" if model is None else f"model {model.name!r} holds no DHE head"
            raise VerifierError(f"{found}; import DHE-VPR weights, or use another verifier such as magsac")
        if not isinstance(model, ExportedModel):
            return cls(load_head(model), precision=precision)
        if precision != FP32:
            raise VerifierError(f"the head of {model.name!r} was exported in single precision; use --precision fp32")
        return cls(OnnxDheHead(model.session(HEAD)))

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate from its features.

        Raises:
            VerifierError: if a local map does not have 24 x 24 cells.
        """
        if not candidates:
            return Homographies(torch.empty(0, 3, 3, dtype=torch.float64), torch.empty(0, dtype=torch.bool))
        points = self._predict(query, candidates)
        between_inputs = four_point_homography(points.query, points.candidate)
        # The points refer to the head's own frame, whatever the extractor's input size.
        query_frame, *candidate_frames = [Frame(view.frame.image_size, INPUT_SIZE) for view in (query, *candidates)]
        between_originals = homographies_between_originals(between_inputs, query_frame, candidate_frames)
        return Homographies.of(between_originals, is_usable(between_originals))

    def _predict(self, query: View, candidates: Sequence[View]) -> PointPairs:
        """Run the head; waits for the device once, at the end."""
        query_map = _local_map(query.features)[None].float()
        predict, parts = self._predictor(query_map.device), []
        batch_size = self.batch_size
        if isinstance(predict, ParallelHead):
            batch_size = max(batch_size, _CANDIDATES_PER_THREAD * torch.get_num_threads())
        for start in range(0, len(candidates), batch_size):
            batch = candidates[start : start + batch_size]
            maps = torch.stack([_local_map(view.features).to(query_map) for view in batch])
            parts.append(predict(query_map, maps))
        return PointPairs(*(torch.cat(side).cpu() for side in zip(*parts, strict=True)))

    def _predictor(self, device: torch.device) -> Predictor:
        if isinstance(self.head, OnnxDheHead):
            return self.head
        with self._lock:
            if device not in self._predictors:
                # Only one is kept: moving the head to another device invalidates the others.
                self._predictors = {device: predictor(self.head, device, self.precision)}
            return self._predictors[device]


def _local_map(features: Features) -> Float[Tensor, "576 dimension"]:
    if features.grid != GRID:
        raise VerifierError(
            f"the DHE head needs local maps of {GRID.rows} x {GRID.columns} cells, and this model makes "
            f"{features.grid.rows} x {features.grid.columns}; use a model with such a grid (CCT at 384 x 384 pixels), "
            "or another verifier, such as magsac"
        )
    return features.local_map


def build(_: str, resources: Resources) -> DheEstimator:
    """Build the estimator with the head of the model; see `DheEstimator.from_model`."""
    require_precision(resources.precision, torch.device(resources.device))
    return DheEstimator.from_model(resources.model, resources.precision)
