"""Prediction of point pairs by a DHE head, in single precision or in fewer bits."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vpr_dhe.errors import VerifierError
from vpr_dhe.runtime.choices import FP32, Precision
from vpr_dhe.runtime.cpu_features import has_integer_linear_layers
from vpr_dhe.runtime.threads import in_parallel, on_one_core
from vpr_dhe.verification.estimators.dhe.network import DheHead, PointPairs, normalised_correlation, point_pairs
from vpr_dhe.verification.estimators.dhe.one_core import BFloat16Linear, Int8Linear, MakeLinear, OneCoreEncoder

Predictor: TypeAlias = Callable[[Tensor, Tensor], PointPairs]
"""Function from the map of a query and the maps of candidates to their point pairs."""


def predictor(head: DheHead, device: torch.device, precision: Precision = FP32) -> Predictor:
    """Make the function that predicts point pairs on a device, with the head's current weights.

    Its transformers multiply in `precision`, fp32, bf16 or int8; its last layer is computed in fp32.

    Raises:
        VerifierError: if `precision` is int8 and the device has no fast 8-bit products.
    """
    require_precision(precision, device)
    if precision == FP32 or device.type != "cpu":
        return partial(_predict_as_one_batch, head.to(device), precision)
    return ParallelHead(head.to(device), Int8Linear if precision == "int8" else BFloat16Linear)


def require_precision(precision: Precision, device: torch.device) -> None:
    """Raise VerifierError if `precision` is int8 and the device has no fast 8-bit products."""
    if precision == "int8" and not has_integer_linear_layers(device):
        raise VerifierError(
            f"a DHE head in 8 bits needs a CPU with AVX-512 VNNI instructions, and device {device} has none; "
            "use --precision fp32"
        )


class ParallelHead:
    """DHE head on a CPU in bf16 or int8: candidates are encoded in parallel, each on one core.

    The weights are copied on construction.
    """

    def __init__(self, head: DheHead, make: MakeLinear) -> None:
        self._encoder, self._second_encoder = (OneCoreEncoder(one, make) for one in (head.encoder, head.encoder2))
        self._positions = head.pe.detach()[0].T.clone(memory_format=torch.contiguous_format)
        # Transposed once here, so that no candidate has to be.
        turned = head.linear.weight.detach().unflatten(1, self._positions.shape).mT
        self._weight, self._bias = turned.flatten(1).contiguous(), head.linear.bias.detach().clone()

    @torch.inference_mode()
    def __call__(
        self, query: Float[Tensor, "1 576 dimension"], candidates: Float[Tensor, "pairs 576 dimension"]
    ) -> PointPairs:
        """Predict the point pairs; the last layer is one product for all candidates."""
        refine, parts = partial(self._refined, query), candidates.split(1)
        # On one core for a single candidate, too: parallel bfloat16 products are blocked, and rounded, differently.
        refined = torch.stack(
            in_parallel(refine, parts) if len(parts) > 1 else [on_one_core(refine, part) for part in parts]
        )
        return point_pairs(functional.linear(refined.flatten(1), self._weight, self._bias))

    @torch.inference_mode()
    def _refined(
        self, query: Float[Tensor, "1 576 dimension"], candidate: Float[Tensor, "1 576 dimension"]
    ) -> Float[Tensor, "576 576"]:
        encoded = self._encoder(normalised_correlation(query, candidate)[0] + self._positions)
        return self._second_encoder(encoded) + encoded


@torch.inference_mode()
def _predict_as_one_batch(
    head: DheHead,
    precision: Precision,
    query: Float[Tensor, "1 576 dimension"],
    candidates: Float[Tensor, "pairs 576 dimension"],
) -> PointPairs:
    with torch.autocast(query.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return head(query, candidates)
