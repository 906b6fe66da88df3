"""An extractor that needs no weights and little time, for any grid and input, and textures for it to look at."""

import cv2
import numpy as np
import PIL.Image
import torch
from torch.nn.functional import normalize

from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.records import Features, Frame, Grid, Size

DHE_GRID, DHE_INPUT = Grid(24, 24), Size(384, 384)


class PatchExtractor(Extractor):
    """Represents each cell of a grid by the 8 x 8 pixels of it in a thumbnail."""

    def __init__(self, grid=DHE_GRID, input_size=DHE_INPUT, tolerance_cells=3.0):
        self.model_file = open_model("sift-vlad").without_head()
        self.spec = ExtractorSpec(
            "patches", "patches", 4, 64, grid, input_size, unit_norm=True, tolerance_cells=tolerance_cells
        )

    def extract(self, images):
        return [self._extract_one(image) for image in images]

    def _extract_one(self, image):
        rows, columns = self.spec.grid
        grey = cv2.resize(
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (8 * columns, 8 * rows), interpolation=cv2.INTER_AREA
        )
        cells = torch.from_numpy(grey).float().unfold(0, 8, 8).unfold(1, 8, 8).reshape(rows * columns, 64)
        cells = normalize(cells - cells.mean(dim=1, keepdim=True) + 1e-3, dim=1)
        return Features(torch.zeros(4), cells, self.spec.grid, Frame(image_size(image), self.spec.input_size))


def texture(width=400, height=300, seed=0):
    """An image with detail everywhere, of which no part is like another."""
    knots = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    return cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC)


def write_textures(folder, count):
    rng = np.random.default_rng(3)
    for number in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (30, 30, 3), np.uint8))
        coarse.resize((420, 420), PIL.Image.Resampling.BICUBIC).save(folder / f"{number}.png")
