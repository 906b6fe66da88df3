"""Homographies by the DHE network, of all candidates of a query.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024 (arXiv:2402.16086).
"""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vpr_dhe.errors import VerifierError
from vpr_dhe.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.estimators.dhe.network import (
    GRID,
    HEAD_NAME,
    INPUT_SIZE,
    DheHead,
    OnnxDheHead,
    PointPairs,
    load_head,
    normalised_correlation,
    point_pairs,
)
from vpr_dhe.estimators.dhe.one_core import BFloat16Linear, Int8Linear, LinearKind, OneCoreEncoder
from vpr_dhe.geometry.coordinates import homographies_between_originals
from vpr_dhe.geometry.homography import four_point_homography, is_usable
from vpr_dhe.models.exported_model import HEAD, ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.processor import has_bfloat16_products, has_integer_linear_layers
from vpr_dhe.records import Features, Frame
from vpr_dhe.threads import in_parallel

Predictor: TypeAlias = Callable[[Tensor, Tensor], PointPairs]
"""From the map of a query and the maps of candidates to their point pairs."""


class HeadPrecision(Enum):
    """In what the transformers of a DHE head multiply; its last layer keeps single precision."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


def fastest_precision(device: torch.device) -> HeadPrecision:
    """What a device multiplies fastest."""
    if has_integer_linear_layers(device):
        return HeadPrecision.int8
    return HeadPrecision.bf16 if has_bfloat16_products(device) else HeadPrecision.fp32


class SharedOutHead:
    """A DHE head on a CPU in fewer bits: candidates are shared out among threads, and each is encoded on one core."""

    def __init__(self, head: DheHead, kind: LinearKind) -> None:
        self._encoder, self._second_encoder = (OneCoreEncoder(one, kind) for one in (head.encoder, head.encoder2))
        self._positions = head.pe.detach()[0].T.contiguous()
        # Rows before columns, in the order that cells come in, so that no candidate has to be turned over.
        turned = head.linear.weight.detach().unflatten(1, self._positions.shape).mT
        self._weight, self._bias = turned.flatten(1).contiguous(), head.linear.bias.detach()

    @torch.inference_mode()
    def __call__(
        self, query: Float[Tensor, "1 576 dimension"], candidates: Float[Tensor, "pairs 576 dimension"]
    ) -> PointPairs:
        """Predict the point pairs; the last layer is one product for all."""
        refined = torch.stack(in_parallel(partial(self._refined, query), candidates.split(1)))
        return point_pairs(functional.linear(refined.flatten(1), self._weight, self._bias))

    @torch.inference_mode()
    def _refined(
        self, query: Float[Tensor, "1 576 dimension"], candidate: Float[Tensor, "1 576 dimension"]
    ) -> Float[Tensor, "576 576"]:
        encoded = self._encoder(normalised_correlation(query, candidate)[0] + self._positions)
        return self._second_encoder(encoded) + encoded


class DheEstimator(HomographyEstimator):
    """Estimates homographies with a DHE head, `batch_size` candidates at a time.

    The head moves to the device of the query's local map. Its transformers multiply in `precision`, by default what is
    fastest there. A candidate takes about 35 MB while it is in the batch, or 2 MB on a CPU in fewer than 32 bits, where
    candidates are shared out among threads.
    """

    name = "dhe"

    def __init__(
        self, head: DheHead | OnnxDheHead, *, batch_size: int = 16, precision: HeadPrecision | None = None
    ) -> None:
        self.head = head.eval()
        self.batch_size, self.precision = batch_size, precision
        self._predictors: dict[torch.device, Predictor] = {}

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
        predict = self._predictor(query_map.device)
        parts = []
        for start in range(0, len(candidates), self.batch_size):
            batch = candidates[start : start + self.batch_size]
            maps = torch.stack([_local_map(view.features).to(query_map) for view in batch])
            parts.append(predict(query_map, maps))
        return PointPairs(*(torch.cat(side).cpu() for side in zip(*parts, strict=True)))

    def _predictor(self, device: torch.device) -> Predictor:
        if isinstance(self.head, OnnxDheHead):
            return self.head
        head = self.head.to(device)
        if device not in self._predictors:
            self._predictors[device] = predictor(head, device, self.precision)
        return self._predictors[device]


def predictor(head: DheHead, device: torch.device, precision: HeadPrecision | None = None) -> Predictor:
    """What predicts the point pairs of a query and some candidates on a device, where the head is.

    Raises:
        VerifierError: if it is to multiply in 8 bits on a GPU.
    """
    precision, on_cpu = precision or fastest_precision(device), device.type == "cpu"
    if precision is HeadPrecision.int8 and not on_cpu:
        raise VerifierError(f"a DHE head multiplies in 8 bits on a CPU alone, and this is on {device}; choose bf16")
    if on_cpu and precision is not HeadPrecision.fp32:
        return SharedOutHead(head, Int8Linear if precision is HeadPrecision.int8 else BFloat16Linear)
    return partial(_predict_as_one_batch, head, precision)


@torch.inference_mode()
def _predict_as_one_batch(
    head: DheHead,
    precision: HeadPrecision,
    query: Float[Tensor, "1 576 dimension"],
    candidates: Float[Tensor, "pairs 576 dimension"],
) -> PointPairs:
    with torch.autocast(query.device.type, torch.bfloat16, enabled=precision is HeadPrecision.bf16):
        return head(query, candidates)


def _local_map(features: Features) -> Float[Tensor, "576 dimension"]:
    if features.grid != GRID:
        raise VerifierError(
            f"the DHE head needs local maps of {GRID.rows} x {GRID.columns} cells, and this model makes "
            f"{features.grid.rows} x {features.grid.columns}; use a model with such a grid (CCT at 384 x 384 pixels), "
            "or another verifier, such as magsac"
        )
    return features.local_map
