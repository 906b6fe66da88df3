"""VLAD of dense RootSIFT over the upper and lower parts of an upright image, projected to a short vector.

Source: Torii et al., "24/7 place recognition by view synthesis", CVPR 2015 (dense RootSIFT and VLAD); Arandjelovic and
Zisserman, "All about VLAD", CVPR 2013 (intra-normalisation); Delhumeau et al., "Revisiting the VLAD image
representation", ACM MM 2013 (normalised residuals); Lazebnik et al., "Beyond bags of features", CVPR 2006 (bands).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from vpr_dhe.features.dense_sift import DenseDescriptors, resize, rootsift_grid

LONG_SIDE_PX = 320
# Side of a SIFT bin at each scale, in pixels of the resized image, and step between descriptors.
BIN_SIZES_PX = (4.0, 6.0, 8.0, 12.0)
SMOOTHING_PX = 0.6
# A local descriptor is weighted by its gradient energy to this power, so that flat regions count less.
ENERGY_POWER = 0.5
# Slope of the weight of the upper band, from 1 to 0 around mid-height, per image height.
BAND_SLOPE = np.float32(4.0)
_TINY = np.float32(1e-8)


@dataclass(frozen=True)
class Vocabulary:
    """Visual words in the space of whitened RootSIFT."""

    mean: Float32[np.ndarray, " 128"]
    whitening: Float32[np.ndarray, "128 reduced"]
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

    def extract(self, grey: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, " dimension"]:
        """Extract the global descriptor, of unit norm, of an image: luminance in [0, 1] at its decoded size."""
        vector = self.projection @ banded_vlad(local_descriptors(grey), self.vocabulary) - self.offset
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


def banded_vlad(local: DenseDescriptors, vocabulary: Vocabulary) -> Float32[np.ndarray, " vlad"]:
    """Aggregate local descriptors into one VLAD for the upper and one for the lower band of the image.

    Street images are upright with the horizon near mid-height, so bands keep roof lines and shop fronts apart. They
    overlap softly, so that a small tilt changes little. The result has unit norm, and so has each non-empty block of
    one band and word, before that.
    """
    points = whitened(local.rootsift, vocabulary.mean, vocabulary.whitening)
    words = nearest_words(points, vocabulary.centres)
    residuals = points - vocabulary.centres[words]
    residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-6)
    weight = local.energy**ENERGY_POWER
    upper = np.clip(np.float32(0.5) - BAND_SLOPE * (local.height - np.float32(0.5)), 0.0, 1.0)
    count, columns = len(vocabulary.centres), np.arange(len(words))
    # With a dense membership matrix, the sums per word are one product, which is faster than a scatter in NumPy.
    membership = np.zeros((2 * count, len(words)), np.float32)
    membership[words, columns] = weight * upper
    membership[count + words, columns] = weight * (1 - upper)
    blocks = membership @ residuals
    norms = np.linalg.norm(blocks, axis=1, keepdims=True)
    blocks = np.where(norms < _TINY, 0, blocks / np.maximum(norms, _TINY))
    vlad = blocks.ravel()
    return vlad / np.maximum(np.linalg.norm(vlad), _TINY)


def whitened(
    rootsift: Float32[np.ndarray, "points 128"],
    mean: Float32[np.ndarray, " 128"],
    whitening: Float32[np.ndarray, "128 reduced"],
) -> Float32[np.ndarray, "points reduced"]:
    """Project local descriptors to the space of the visual words."""
    return (rootsift - mean) @ whitening


def nearest_words(
    points: Float32[np.ndarray, "points size"], centres: Float32[np.ndarray, "words size"]
) -> Int64[np.ndarray, " points"]:
    """Find the index of the nearest visual word of each descriptor."""
    return (points @ centres.T - 0.5 * np.einsum("wd,wd->w", centres, centres)).argmax(axis=1)
