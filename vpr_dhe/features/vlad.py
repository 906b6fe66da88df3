"""VLAD of dense RootSIFT over horizontal bands of an upright image, projected to a short vector.

Source: Torii et al., "24/7 place recognition by view synthesis", CVPR 2015 (dense RootSIFT and VLAD); Arandjelovic and
Zisserman, "All about VLAD", CVPR 2013 (intra-normalisation); Delhumeau et al., "Revisiting the VLAD image
representation", ACM MM 2013 (normalised residuals); Lazebnik et al., "Beyond bags of features", CVPR 2006 (bands).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from vpr_dhe.features.dense_sift import DenseDescriptors, resize, rootsift_grid

LONG_SIDE_PX = 320
# Side of a SIFT bin at each scale, in pixels of the resized image, and step between descriptors.
BIN_SIZES_PX = (4.0, 6.0, 8.0, 12.0)
SMOOTHING_PX = 0.6
# A local descriptor is weighted by its gradient energy to this power, so that flat regions count less.
ENERGY_POWER = 0.5
_TINY = np.float32(1e-8)


@dataclass(frozen=True)
class Vocabulary:
    """Visual words in the space of whitened local descriptors, such as RootSIFT."""

    mean: Float32[np.ndarray, " d"]
    whitening: Float32[np.ndarray, "d reduced"]
    centres: Float32[np.ndarray, "words reduced"]


@dataclass(frozen=True)
class VladModel:
    """Learned parameters: a vocabulary, and the projection of a VLAD v to `projection @ v - offset`."""

    vocabulary: Vocabulary
    projection: Float32[np.ndarray, "dimension vlad"]
    offset: Float32[np.ndarray, " dimension"]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "VladModel":
        """Convert the tensors of a model file."""
        arrays = {name: value.float().numpy() for name, value in tensors.items()}
        vocabulary = Vocabulary(arrays["mean"], arrays["whitening"], arrays["centres"])
        return cls(vocabulary, arrays["projection"], arrays["offset"])

    @property
    def bands(self) -> int:
        """Number of bands, from the shapes."""
        return self.projection.shape[1] // self.vocabulary.centres.size

    def extract(self, grey: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, " dimension"]:
        """Extract the global descriptor, of unit norm, from luminance in [0, 1] at the decoded size."""
        vector = self.projection @ banded_vlad(local_descriptors(grey), self.vocabulary, self.bands) - self.offset
        return vector / np.maximum(np.linalg.norm(vector), _TINY)


def local_descriptors(grey: Float32[np.ndarray, "height width"]) -> DenseDescriptors:
    """Extract descriptors on a grid at every scale, after resizing the longer side to 320 pixels."""
    resized = resize(grey, LONG_SIDE_PX / max(grey.shape))
    scales = [rootsift_grid(resized, bin_size_px, SMOOTHING_PX) for bin_size_px in BIN_SIZES_PX]
    return DenseDescriptors(
        rootsift=np.concatenate([scale.rootsift for scale in scales]),
        energy=np.concatenate([scale.energy for scale in scales]),
        height=np.concatenate([scale.height for scale in scales]),
    )


def banded_vlad(local: DenseDescriptors, vocabulary: Vocabulary, bands: int = 2) -> Float32[np.ndarray, " vlad"]:
    """Aggregate local descriptors into one VLAD per horizontal band of the image; see `band_weights`.

    Each non-empty block of one band and word is scaled to unit norm, and then the result.
    """
    points = whitened(local.rootsift, vocabulary.mean, vocabulary.whitening)
    words = nearest_words(points, vocabulary.centres)
    residuals = points - vocabulary.centres[words]
    residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-6)
    weight = local.energy**ENERGY_POWER
    count, columns = len(vocabulary.centres), np.arange(len(words))
    # A product with a dense membership matrix is faster than a scatter in NumPy.
    membership = np.zeros((bands * count, len(words)), np.float32)
    for band, in_band in enumerate(band_weights(torch.from_numpy(local.height), bands).numpy()):
        membership[band * count + words, columns] = weight * in_band
    blocks = membership @ residuals
    norms = np.linalg.norm(blocks, axis=1, keepdims=True)
    blocks = np.where(norms < _TINY, 0, blocks / np.maximum(norms, _TINY))
    vlad = blocks.ravel()
    return vlad / np.maximum(np.linalg.norm(vlad), _TINY)


def band_weights(heights: Float[Tensor, " points"], bands: int) -> Float[Tensor, "bands points"]:
    """Weight of points in each horizontal band of the image, from the top; they sum to one.

    Street images are upright with the horizon near mid-height, so bands keep roof lines and shop fronts apart. They
    have equal heights and overlap softly, over half of their height, so that a small tilt changes little.

    Args:
        heights: vertical positions, from 0 at the top of the image to 1 at its bottom.
        bands: number of bands.
    """
    above = [(0.5 - 2 * bands * (heights - edge / bands)).clamp(0, 1) for edge in range(1, bands)]
    ends = [torch.zeros_like(heights), *above, torch.ones_like(heights)]
    return torch.stack([lower - upper for upper, lower in pairwise(ends)])


def whitened(
    cells: Float32[np.ndarray, "points d"],
    mean: Float32[np.ndarray, " d"],
    whitening: Float32[np.ndarray, "d reduced"],
) -> Float32[np.ndarray, "points reduced"]:
    """Project local descriptors to the space of the visual words."""
    return (cells - mean) @ whitening


def nearest_words(
    points: Float32[np.ndarray, "points size"], centres: Float32[np.ndarray, "words size"]
) -> Int64[np.ndarray, " points"]:
    """Find the index of the nearest visual word of each descriptor."""
    return (points @ centres.T - 0.5 * np.einsum("wd,wd->w", centres, centres)).argmax(axis=1)
