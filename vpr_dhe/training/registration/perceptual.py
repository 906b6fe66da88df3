"""Perceptual losses of image pairs within a mask.

Source: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016, on VGG-16.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate, normalize
from torchvision.models import vgg16

from vpr_dhe.errors import ModelError

# The ends of the first four blocks of VGG-16: relu1_2, relu2_2, relu3_3, relu4_3.
_VGG_ENDS = (4, 9, 16, 23)
_VGG_MEAN, _VGG_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GREY = (0.299, 0.587, 0.114)
_WINDOW_PX = 7
# In units of squared gradients of images in [0, 1]; flatter windows count as equal.
_STABILISER = 1e-3


class PerceptualLoss(nn.Module, ABC):
    """Loss of image pairs under fixed features."""

    @abstractmethod
    def forward(
        self,
        image: Float[Tensor, "pairs 3 height width"],
        target: Float[Tensor, "pairs 3 height width"],
        shown: Bool[Tensor, "pairs height width"],
    ) -> Float[Tensor, ""]:
        """Mean over the pixels that `shown` marks; 0 if there are none."""


class VggLoss(PerceptualLoss):
    """Mean absolute difference of VGG-16 features at four depths, normalised along the channels.

    Args:
        file: torchvision's weights of `vgg16`, trained on ImageNet, as written by torch.save.

    Raises:
        ModelError: if the file is missing or holds something else.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        # No initialisation: all weights are in the file.
        with torch.device("meta"):
            network = vgg16(weights=None)
        try:
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), assign=True)
        except Exception as error:  # damaged files raise errors of any kind
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{file} holds no weights of torchvision's vgg16: {reason[:200]}; give the file that torchvision "
                "downloads as vgg16-397923af.pth"
            ) from error
        layers = list(network.features.children())
        self.blocks = nn.ModuleList(nn.Sequential(*layers[start:end]) for start, end in pairwise((0, *_VGG_ENDS)))
        self.requires_grad_(requires_grad=False)

    def forward(
        self,
        image: Float[Tensor, "pairs 3 height width"],
        target: Float[Tensor, "pairs 3 height width"],
        shown: Bool[Tensor, "pairs height width"],
    ) -> Float[Tensor, ""]:
        """Mean over the depths."""
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (_VGG_MEAN, _VGG_STD))
        maps, losses = torch.cat([image - mean, target - mean]) / std, []
        for block in self.blocks:
            maps = block(maps)
            difference = torch.sub(*normalize(maps.float(), dim=1).chunk(2)).abs().sum(dim=1)
            losses.append(masked_mean(difference, shown))
        return torch.stack(losses).mean()


def feature_difference(
    image_maps: Sequence[Float[Tensor, "pairs _ _ _"]],
    target_maps: Sequence[Float[Tensor, "pairs _ _ _"]],
    shown: Bool[Tensor, "pairs height width"],
) -> Float[Tensor, ""]:
    """One minus the mean cosine similarity of feature maps, averaged over the maps."""
    losses = [
        masked_mean(1 - cosine_similarity(image.float(), target.float(), dim=1), shown)
        for image, target in zip(image_maps, target_maps, strict=True)
    ]
    return torch.stack(losses).mean()


def gradient_dissimilarity(
    image: Float[Tensor, "pairs 3 height width"],
    target: Float[Tensor, "pairs 3 height width"],
    shown: Bool[Tensor, "pairs height width"],
) -> Float[Tensor, ""]:
    """One minus the structural similarity of grey gradients in windows of 7 px: edges at the same positions.

    Per window, |sum of g_x h_x + g_y h_y| over half the sum of their squares: 1 if the gradients g and h are equal or
    opposite, as between cameras with inverted contrast.
    """
    (x, y), (target_x, target_y) = _gradients(image), _gradients(target)
    common = _windowed(x * target_x + y * target_y).abs()
    energy = _windowed(x.square() + y.square() + target_x.square() + target_y.square()) / 2
    return masked_mean(1 - (common + _STABILISER) / (energy + _STABILISER), shown)


def masked_mean(
    values: Float[Tensor, "pairs rows columns"], shown: Bool[Tensor, "pairs height width"]
) -> Float[Tensor, ""]:
    """Mean over the cells that lie entirely in the mask; 0 if there are none."""
    weights = shown.unsqueeze(1).to(values)
    weights = (interpolate(weights, values.shape[1:], mode="area").squeeze(1) > 1 - 1e-3).to(values)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _gradients(
    images: Float[Tensor, "pairs 3 height width"],
) -> tuple[Float[Tensor, "pairs height width"], Float[Tensor, "pairs height width"]]:
    """Gradients along x and y; 0 in the last column and row."""
    grey = (images * images.new_tensor(_GREY).view(3, 1, 1)).sum(dim=1)
    x, y = grey.diff(dim=2, append=grey[:, :, -1:]), grey.diff(dim=1, append=grey[:, -1:])
    return x, y


def _windowed(values: Float[Tensor, "pairs height width"]) -> Float[Tensor, "pairs height width"]:
    return avg_pool2d(values.unsqueeze(1), _WINDOW_PX, stride=1, padding=_WINDOW_PX // 2).squeeze(1)
