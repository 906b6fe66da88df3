"""Whitening of the descriptor of a trained network, fitted to unlabelled images.

The network must have the aggregator `gem`; the result pools bands of the image by GeM and projects them.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.aggregators.whitened import WhitenedGeM
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Preprocessing, Progress
from vpr_dhe.training.sources.base import Draws, PairSource
from vpr_dhe.training.trainable_extractor import TrainableExtractor

_REQUIRED_AGGREGATOR = "gem"
_PAIRS_PER_BATCH = 16


@dataclass(frozen=True)
class WhiteningSettings:
    """Settings of a whitening.

    Args:
        aggregator: `gem-whitened` or `gem-2-bands-whitened`.
        pairs: number of pairs of views for the fit.
        power: power of the variance that each direction is divided by; 0.5 is full whitening, for which the smallest
            variances are too noisy with a few thousand images.
        seed: seed of the pairs.
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
    """Replace the GeM of a model by a whitened GeM. A head is kept, because local maps do not change.

    Args:
        model: network with the aggregator `gem`.
        source: pairs of views of one place.
        settings: aggregator, number of pairs, power and seed.
        device: device of the network.
        progress: called with the number of pairs just extracted.

    Raises:
        ModelError: if the model has another aggregator.
        BadInputError: with fewer pairs than the descriptor has dimensions.
    """
    if model.architecture.aggregator != _REQUIRED_AGGREGATOR:
        found = model.architecture.aggregator
        raise ModelError(f"model {model.name!r} has the aggregator {found}; whitening needs {_REQUIRED_AGGREGATOR}")
    unprojected = _unprojected(model, settings.aggregator)
    extractor = TrainableExtractor(unprojected).to(device).eval()
    vectors = _means_over_views(extractor, unprojected.preprocessing, Draws(source, settings.seed), settings, progress)
    if len(vectors) <= vectors.shape[1]:
        raise BadInputError(f"{len(vectors)} pairs are too few to whiten {vectors.shape[1]} dimensions; use more pairs")
    dimension = len(unprojected.tensors["aggregator.offset"])
    projection, offset = projection_of(vectors, dimension, settings.power)
    learned = {"aggregator.projection": torch.from_numpy(projection), "aggregator.offset": torch.from_numpy(offset)}
    return replace(unprojected, tensors={**unprojected.tensors, **learned})


def projection_of(
    vectors: Float32[np.ndarray, "images d"], dimension: int, power: float, ridge: float = 0.0
) -> tuple[Float32[np.ndarray, "dimension d"], Float32[np.ndarray, " dimension"]]:
    """Compute partly whitened principal axes W of vectors, each the mean over views of an image, and W @ mean.

    Args:
        vectors: vectors of images.
        dimension: number of axes.
        power: power of the variance that each axis is divided by.
        ridge: value added to each variance first, as a fraction of the mean variance.

    Source: Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening", ECCV 2012. Averaging over views replaces the within-pair whitening of Mikolajczyk and Matas, ICCV 2007,
    for which a few thousand images are too few.
    """
    data = torch.from_numpy(vectors)
    mean = data.mean(0)
    axes, variances = principal_axes(data - mean, dimension)
    mean_variance = float((data - mean).square().mean())
    projection = (axes * (variances.clamp(min=1e-6 * float(variances[0])) + ridge * mean_variance) ** -power).T
    # The output is normalised, so the scale is arbitrary; this one suits half precision.
    projection = (projection / projection.abs().max()).half().float()
    # From the rounded projection, so that it cancels the mean exactly.
    return projection.numpy(), (projection @ mean).numpy()


def principal_axes(
    centred: Float[Tensor, "samples d"], count: int
) -> tuple[Float[Tensor, "d count"], Float[Tensor, " count"]]:
    """Compute the largest principal axes of samples and their variances, from the smaller Gram matrix."""
    rows, columns = centred.shape
    if columns <= rows:
        return principal_axes_of(centred.T @ centred / rows, count)
    coefficients, variances = principal_axes_of(centred @ centred.T / rows, count)
    return centred.T @ (coefficients / torch.sqrt(variances * rows)), variances


def principal_axes_of(
    moments: Float[Tensor, "d d"], count: int
) -> tuple[Float[Tensor, "d count"], Float[Tensor, " count"]]:
    """Compute the largest principal axes of a matrix of second moments, and the moments along them."""
    variances, axes = torch.linalg.eigh(moments)
    return axes.flip(1)[:, :count], variances.flip(0)[:count]


def _unprojected(model: ModelFile, aggregator: str) -> ModelFile:
    """Return the model with a whitened GeM whose projection is not fitted yet."""
    built = build_aggregator(aggregator, TrainableExtractor(model).backbone.dimension)
    kept = {name: value for name, value in model.tensors.items() if not name.startswith("aggregator.")}
    state = {f"aggregator.{name}": value for name, value in built.state_dict().items()}
    return replace(
        model,
        architecture=replace(model.architecture, aggregator=aggregator),
        tensors={**kept, **state, "aggregator.pool.p": model.tensors["aggregator.p"]},
        published=False,
    )


@torch.inference_mode()
def _means_over_views(
    extractor: TrainableExtractor,
    preprocessing: Preprocessing,
    draws: Draws,
    settings: WhiteningSettings,
    progress: Progress,
) -> Float32[np.ndarray, "pairs d"]:
    """Compute the mean of the pooled vectors of both views of each pair."""
    if not isinstance(extractor.aggregator, WhitenedGeM):
        raise ModelError(
            f"aggregator {settings.aggregator!r} does not whiten; expected gem-whitened or gem-2-bands-whitened"
        )
    device, means = next(extractor.parameters()).device, []
    for first in range(0, settings.pairs, _PAIRS_PER_BATCH):
        end = min(first + _PAIRS_PER_BATCH, settings.pairs)
        pairs = [draws.pair(number) for number in range(first, end)]
        views = [image for pair in pairs for image in (pair.image_a, pair.image_b)]
        vectors = extractor.aggregator.pooled(extractor.backbone(to_network_input(views, preprocessing, device)))
        means.append((vectors[::2] + vectors[1::2]).cpu() / 2)
        progress(len(pairs))
    return torch.cat(means).numpy()
