"""Settings of the fit of a VLAD, and the fit of the vocabulary, which all kinds of cells share."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from sklearn.cluster import KMeans

from vpr_dhe.errors import BadInputError
from vpr_dhe.features.vlad import Vocabulary, whitened
from vpr_dhe.models.names import JOINT_VLAD
from vpr_dhe.training.whitening import principal_axes_of


@dataclass(frozen=True)
class VladSettings:
    """Sizes of a VLAD and of its training.

    Args:
        aggregator: `vlad`, `netvlad`, or `joint-vlad`, for models with a local head.
        words: number of visual words.
        bands: number of horizontal bands of the image.
        dimension: length of the global descriptor; less than the number of images.
        reduced_dimension: dimension in which cells are compared with words; at most that of the cells.
        local_dimension: length of the descriptors in the local map of `sift-vlad`.
        eigenvalue_floor: value added to the eigenvalues of cells, as a fraction of the largest eigenvalue.
        descriptors_per_image: maximum number of cells per image for fitting the vocabulary.
        views_per_image: number of random views of each image for fitting the projection.
        whitening_power: power of the eigenvalue that each output dimension is divided by; 0.5 is full whitening, for
            which the smallest eigenvalues are too noisy with a few thousand images.
        eigenvalue_ridge: value added to the eigenvalues of VLADs for whitening, as a fraction of their mean.
        average_views: whether the projection is fitted to the mean over the views of an image, or to the image and each
            of its views.
        local_weight: norm of the VLAD of descriptors in `joint-vlad`; that of the tokens has norm 1.
        seed: seed of samples, clusters and views.
    """

    aggregator: str = "netvlad"
    words: int = 64
    bands: int = 2
    dimension: int = 512
    reduced_dimension: int = 128
    local_dimension: int = 128
    eigenvalue_floor: float = 0.01
    descriptors_per_image: int = 120
    views_per_image: int = 4
    whitening_power: float = 0.4
    eigenvalue_ridge: float = 0.0
    average_views: bool = True
    local_weight: float = 0.7
    seed: int = 0


NETWORK_SETTINGS = VladSettings()
SIFT_VLAD_SETTINGS = VladSettings(aggregator="vlad", dimension=384, reduced_dimension=64)
"""Settings of the bundled model."""
JOINT_SETTINGS = VladSettings(
    aggregator=JOINT_VLAD,
    words=8,
    dimension=768,
    views_per_image=2,
    whitening_power=0.2,
    eigenvalue_ridge=1.0,
    average_views=False,
)
"""Settings of `lite-vlad`, except for the scale of its cells."""


def require_projectable(settings: VladSettings, *cell_dimensions: int) -> None:
    """Check that VLADs of cells of these dimensions are long enough for the projection.

    Raises:
        BadInputError: if they are shorter than the global descriptor.
    """
    reduced = sum(min(settings.reduced_dimension, dimension) for dimension in cell_dimensions)
    if settings.words * settings.bands * reduced < settings.dimension:
        raise BadInputError(
            f"a VLAD of {settings.words} words x {settings.bands} bands x {reduced} numbers is shorter than "
            f"--dimension {settings.dimension}; choose more words or a smaller dimension"
        )


def fit_vocabulary(samples: Float32[np.ndarray, "samples d"], settings: VladSettings) -> Vocabulary:
    """Whiten cells and cluster them.

    Raises:
        BadInputError: if there are fewer cells than words.
    """
    if len(samples) < settings.words:
        raise BadInputError(
            f"{len(samples)} cells of the images are too few for {settings.words} words; give more images, or fewer "
            "words"
        )
    mean = samples.mean(axis=0)
    axes, variances = principal_axes_of(torch.from_numpy(np.cov(samples.T)), settings.reduced_dimension)
    whitening = (axes * (variances + settings.eigenvalue_floor * variances[0]).rsqrt()).float().numpy()
    points = whitened(samples, mean, whitening)
    clusters = KMeans(settings.words, n_init="auto", max_iter=30, random_state=settings.seed).fit(points)
    return Vocabulary(mean, whitening, clusters.cluster_centers_.astype(np.float32))
