"""A network small enough to be trained in a moment, with cells of 16 pixels."""

import torch
from torch import nn

from vpr_dhe.features.base import Aggregator, Backbone, DenseTokens
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Grid, Preprocessing
from vpr_dhe.training.trainable_extractor import TrainableExtractor


class Cells(Backbone):
    """Each cell by two layers on its pixels, averaged by 2 x 2."""

    dimension = 24

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 32, 8, stride=8))
        self.blocks = nn.ModuleList([nn.Sequential(nn.GELU(), nn.Conv2d(32, 24, 1))])

    def forward(self, images):
        maps = self.blocks[0](self.stem(images))
        return DenseTokens(maps.flatten(2).mT, Grid(*maps.shape[-2:]))


class MeanAndSpread(Aggregator):
    def forward(self, tokens):
        return torch.cat([tokens.patches.mean(dim=1), tokens.patches.std(dim=1)], dim=1)


def small_model(side_px):
    """A model file for it; what it was trained on and its weights say nothing."""
    preprocessing = Preprocessing(side_px, side_px, "bilinear", True, (0.5,) * 3, (0.25,) * 3)
    return ModelFile("cells", Architecture("cct_7_7x2_224", "gem"), preprocessing, "CC0", "nothing", {})


def small_extractor(side_px, first_trained_block=None, seed=0):
    torch.manual_seed(seed)
    return TrainableExtractor(small_model(side_px), first_trained_block, backbone=Cells(), aggregator=MeanAndSpread())
