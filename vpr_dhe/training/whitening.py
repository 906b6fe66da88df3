"""Whiten the descriptor of a trained network: learn, from photos, which directions of it tell places apart.

The network must pool by `gem`; the result pools bands of the image by GeM and projects them. Where training saw few
images this is worth more than any other step, and costs minutes.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.aggregators.whitened import WhitenedGeM
from vpr_dhe.images import to_network_input
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Preprocessing, Progress
from vpr_dhe.training.sources.base import Draws, PairSource
from vpr_dhe.training.trainable_extractor import TrainableExtractor

_POOLED_BY = "gem"
_EXTRACTED_AT_ONCE = 16


@dataclass(frozen=True)
class WhiteningSettings:
    """What decides how a projection comes out, besides its data.

    Args:
        aggregator: `gem-whitened` or `gem-2-bands-whitened`.
        pairs: how many pairs of views it is learned from.
        power: of its variance, by which each direction is divided; 0.5 is full whitening, which trusts the smallest
            variances more than a few thousand images allow.
        seed: of the pairs.
    """

    aggregator: str = "gem-2-bands-whitened"
    pairs: int = 2000
    power: float = 0.4
    seed: int = 0


def whiten(
    model: ModelFile,
    source: PairSource,
    settings: WhiteningSettings,
    device: torch.device,
    *,
    progress: Progress = lambda _: None,
) -> ModelFile:
    """Put a whitened GeM in the place of the GeM of a model; a head stays, because local maps do.

    Args:
        model: a network that pools by `gem`.
        source: pairs of views of one place.
        settings: what decides how the projection comes out.
        device: runs the network.
        progress: called with the number of pairs just extracted.

    Raises:
        ModelError: if the model does not pool by GeM.
        BadInputError: with fewer pairs than the descriptor has dimensions.
    """
    if model.architecture.aggregator != _POOLED_BY:
        found = model.architecture.aggregator
        raise ModelError(f"model {model.name!r} pools by {found}; only what pools by {_POOLED_BY} can be whitened")
    unprojected = _unprojected(model, settings.aggregator)
    extractor = TrainableExtractor(unprojected).to(device).eval()
    vectors = _means_over_views(extractor, unprojected.preprocessing, Draws(source, settings.seed), settings, progress)
    if len(vectors) <= vectors.shape[1]:
        raise BadInputError(f"{len(vectors)} pairs are too few to whiten {vectors.shape[1]} dimensions; ask for more")
    dimension = len(unprojected.tensors["aggregator.offset"])
    projection, offset = projection_of(vectors, dimension, settings.power)
    learned = {"aggregator.projection": torch.from_numpy(projection), "aggregator.offset": torch.from_numpy(offset)}
    return replace(unprojected, tensors={**unprojected.tensors, **learned})


def projection_of(
    vectors: Float32[np.ndarray, "images d"], dimension: int, power: float
) -> tuple[Float32[np.ndarray, "dimension d"], Float32[np.ndarray, " dimension"]]:
    """Principal axes W of vectors, each the mean over views of one image, partly whitened; and W times their mean.

    Source: Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening", ECCV 2012. Averaging over views takes the place of the within-pair whitening of Mikolajczyk and Matas,
    ICCV 2007, for which a few thousand images are too few.
    """
    data = torch.from_numpy(vectors)
    mean = data.mean(0)
    axes, variances = principal_axes(data - mean, dimension)
    projection = (axes * variances.clamp(min=1e-6 * float(variances[0])) ** -power).T
    # The scale is free, because the output is normalised: it is chosen for the range of half precision.
    projection = (projection / projection.abs().max()).half().float()
    # The offset must cancel what the stored projection does to the mean, so it is computed from the rounded one.
    return projection.numpy(), (projection @ mean).numpy()


def principal_axes(
    centred: Float[Tensor, "samples d"], count: int
) -> tuple[Float[Tensor, "d count"], Float[Tensor, " count"]]:
    """Largest principal axes of samples and their variances, from the smaller of the two Gram matrices."""
    rows, columns = centred.shape
    if columns <= rows:
        return principal_axes_of(centred.T @ centred / rows, count)
    coefficients, variances = principal_axes_of(centred @ centred.T / rows, count)
    return centred.T @ (coefficients / torch.sqrt(variances * rows)), variances


def principal_axes_of(
    moments: Float[Tensor, "d d"], count: int
) -> tuple[Float[Tensor, "d count"], Float[Tensor, " count"]]:
    """Largest principal axes of a matrix of second moments, and the moments along them."""
    variances, axes = torch.linalg.eigh(moments)
    return axes.flip(1)[:, :count], variances.flip(0)[:count]


def _unprojected(model: ModelFile, aggregator: str) -> ModelFile:
    """The model with a whitened GeM that has learned nothing yet but how to pool."""
    built = build_aggregator(aggregator, TrainableExtractor(model).backbone.dimension)
    kept = {name: value for name, value in model.tensors.items() if not name.startswith("aggregator.")}
    state = {f"aggregator.{name}": value for name, value in built.state_dict().items()}
    return replace(
        model,
        architecture=replace(model.architecture, aggregator=aggregator),
        tensors={**kept, **state, "aggregator.pool.p": model.tensors["aggregator.p"]},
    )


@torch.inference_mode()
def _means_over_views(
    extractor: TrainableExtractor,
    preprocessing: Preprocessing,
    draws: Draws,
    settings: WhiteningSettings,
    progress: Progress,
) -> Float32[np.ndarray, "pairs d"]:
    """The mean over both views of each pair, as they are pooled."""
    if not isinstance(extractor.aggregator, WhitenedGeM):
        raise ModelError(f"{settings.aggregator} does not whiten; expected an aggregator that does")
    device, means = next(extractor.parameters()).device, []
    for first in range(0, settings.pairs, _EXTRACTED_AT_ONCE):
        end = min(first + _EXTRACTED_AT_ONCE, settings.pairs)
        pairs = [draws.pair(number) for number in range(first, end)]
        views = [image for pair in pairs for image in (pair.image_a, pair.image_b)]
        vectors = extractor.aggregator.pooled(extractor.backbone(to_network_input(views, preprocessing, device)))
        means.append((vectors[::2] + vectors[1::2]).cpu() / 2)
        progress(len(pairs))
    return torch.cat(means).numpy()
