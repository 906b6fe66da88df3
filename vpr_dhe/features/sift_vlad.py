"""Extractor `sift-vlad`, without a network: a VLAD of dense RootSIFT, and a 24 x 24 map of RootSIFT."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.features.dense_sift import rootsift_at
from vpr_dhe.features.texture import without_blank_cells
from vpr_dhe.features.vlad import VladModel
from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.names import SIFT_VLAD
from vpr_dhe.records import Features, Frame, Grid, Image, Size

GRID = Grid(24, 24)
INPUT_SIZE = Size(384, 384)
# Descriptors of a cell cover 32 and 48 of the 384 pixels.
LOCAL_BIN_SIZES_PX = (8.0, 12.0)
_CENTRES = cell_centres(GRID, INPUT_SIZE).numpy()


class SiftVladExtractor(Extractor):
    """Extractor of RootSIFT features, one image per core at a time.

    The image is resized to 384 x 384 for the local map; each cell has descriptors at two scales, projected to 128
    dimensions.
    """

    def __init__(self, model: ModelFile, name: str = SIFT_VLAD) -> None:
        self.model_file = model
        self._vlad = VladModel.from_tensors(model.part("aggregator"))
        self._local_projection = model.part("backbone")["local_projection"].float()
        self.spec = ExtractorSpec(
            model=name,
            fingerprint=model.extractor_fingerprint,
            dimension=len(self._vlad.offset),
            local_dimension=self._local_projection.shape[1],
            grid=GRID,
            input_size=INPUT_SIZE,
            unit_norm=model.architecture.unit_norm,
            tolerance_cells=model.architecture.tolerance_cells,
        )

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image."""
        # In threads, because OpenCV and NumPy release the GIL for most of the work.
        with ThreadPoolExecutor(max_workers=max(1, min(len(images), torch.get_num_threads()))) as pool:
            return list(pool.map(self._extract_one, images))

    def _extract_one(self, image: Image) -> Features:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
        local_map = normalize(local_descriptors_of_cells(grey) @ self._local_projection, dim=1)
        vector = torch.from_numpy(self._vlad.extract(grey))
        local_map = without_blank_cells(local_map, image, GRID)
        return Features(vector, local_map, GRID, Frame(image_size(image), INPUT_SIZE))


def local_descriptors_of_cells(grey: Float32[np.ndarray, "height width"]) -> Float32[Tensor, "576 256"]:
    """Extract the descriptors of each cell of an image (luminance in [0, 1]) at both scales, before projection."""
    squeezed = cv2.resize(grey, INPUT_SIZE, interpolation=cv2.INTER_AREA)
    scales = [rootsift_at(squeezed, _CENTRES, bin_size_px)[0] for bin_size_px in LOCAL_BIN_SIZES_PX]
    return torch.from_numpy(np.concatenate(scales, axis=1))
