"""Iterative homography network: look up the correlation around the current estimate, and correct the estimate.

Source: Cao et al., "Iterative Deep Homography Estimation" (IHN), CVPR 2022.
"""

from math import log2
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, relu

from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Grid, Size
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork, homographies_of

RADIUS = 4
LEVELS = 2
_CHANNELS_PER_GROUP = 8
_COARSE_STRIDE, _FINE_STRIDE = 4, 2


class IterativeNetwork(RegistrationNetwork):
    """IHN of one or two scales.

    Args:
        side_px: side of the images, a power of two.
        width: channels of the first layers; the others have multiples of it. The paper's is 64.
        iterations: corrections at each scale.
        scales: 1 uses features at a quarter of the side, 2 then also those at half the side.
    """

    def __init__(self, side_px: int = 128, width: int = 64, iterations: int = 6, scales: int = 1) -> None:
        super().__init__()
        self.size, self._iterations = Size(side_px, side_px), iterations
        self.encoder = _Encoder(width, fine=scales > 1)
        self._strides = (_COARSE_STRIDE, _FINE_STRIDE)[:scales]
        self.updates = nn.ModuleList(_Update(side_px // stride, 2 * width) for stride in self._strides)

    def extract(self, images: Float[Tensor, "images 3 height width"]) -> list[Float[Tensor, "images _ _ _"]]:
        """Extract the maps that are correlated, one per scale, the coarser first."""
        return self.encoder(2 * images - 1).correlated

    def depths(self, images: Float[Tensor, "images 3 height width"]) -> "Depths":
        """Extract the maps of all stages of the encoder."""
        return self.encoder(2 * images - 1)

    def forward(
        self, a: Float[Tensor, "pairs 3 height width"], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements after each iteration; gradients do not pass through the lookup positions."""
        displacements = torch.zeros(len(a), 4, 2, device=a.device)
        estimates: list[Tensor] = []
        for maps, stride, update in zip(self.extract(torch.cat([a, b])), self._strides, self.updates, strict=True):
            map_a, map_b = maps.float().chunk(2)
            lookup = CorrelationLookup(map_a, map_b)
            for _ in range(self._iterations):
                cells, flow = self._cells(displacements.detach(), stride)
                displacements = displacements + update(torch.cat([lookup(cells), flow], dim=1)).float()
                estimates.append(displacements)
        return estimates

    def _cells(
        self, displacements: Float[Tensor, "pairs 4 2"], stride: int
    ) -> tuple[Float[Tensor, "pairs cells 2"], Float[Tensor, "pairs 2 rows columns"]]:
        """Positions of the cells of A among those of B, and their displacements, in cells."""
        grid = Grid(self.size.height // stride, self.size.width // stride)
        centres = cell_centres(grid, self.size).to(displacements.device)
        mapped = project(homographies_of(displacements, self.size), centres)
        flow = ((mapped - centres) / stride).float()
        return ((mapped + 0.5) / stride - 0.5).float(), flow.mT.unflatten(2, grid)


class CorrelationLookup:
    """Lookup of the all-pairs correlation of two maps around given places, at two resolutions of B.

    Source: IHN (ReLU of the inner products); Teed and Deng, "RAFT", ECCV 2020, section 3.2 (lookup).
    """

    def __init__(
        self, map_a: Float[Tensor, "pairs channels rows columns"], map_b: Float[Tensor, "pairs channels rows columns"]
    ) -> None:
        pairs, channels, rows, columns = map_a.shape
        self._grid = Grid(rows, columns)
        products = (map_a.flatten(2) / channels**0.5).mT @ map_b.flatten(2)
        volume = relu(products.float()).view(pairs * rows * columns, 1, rows, columns)
        self._pyramid = [volume]
        for _ in range(LEVELS - 1):
            self._pyramid.append(avg_pool2d(self._pyramid[-1], 2))
        steps = torch.arange(-RADIUS, RADIUS + 1, device=map_a.device, dtype=torch.float32)
        self._window = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)

    def __call__(self, places: Float[Tensor, "pairs cells 2"]) -> Float[Tensor, "pairs values rows columns"]:
        """Look up, for each cell of A, the values in a window around its place (x, y) in B, in cells."""
        found = [self._around(places, level) for level in range(LEVELS)]
        return torch.cat(found, dim=2).mT.unflatten(2, self._grid)

    def _around(self, places: Float[Tensor, "pairs cells 2"], level: int) -> Float[Tensor, "pairs cells window"]:
        volume = self._pyramid[level]
        sides = torch.tensor([volume.shape[3], volume.shape[2]], device=volume.device)
        centre = (places + 0.5) / 2**level
        points = centre.flatten(0, 1)[:, None, None] + self._window
        values = grid_sample(volume, 2 * points / sides - 1, align_corners=False)
        return values.view(*places.shape[:2], -1)


class Depths(NamedTuple):
    """Maps of the encoder's three stages (at full, half and a quarter of the side) and those that are correlated."""

    hidden: list[Tensor]
    correlated: list[Tensor]


class _Encoder(nn.Module):
    """Encoder of images to maps at a quarter of the side and, if `fine`, at half the side."""

    def __init__(self, width: int, *, fine: bool) -> None:
        super().__init__()
        wider = width * 3 // 2
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, padding=3), nn.InstanceNorm2d(width), nn.ReLU())
        self.to_half = nn.Sequential(nn.MaxPool2d(2), _Residual(width, width), _Residual(width, width))
        self.to_quarter = nn.Sequential(nn.MaxPool2d(2), _Residual(width, wider), _Residual(wider, wider))
        # These two names are part of the keys of stored weights.
        self.describe_coarse = nn.Conv2d(wider, 4 * width, 1)
        self.describe_fine = nn.Conv2d(width, 4 * width, 1) if fine else None

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Depths:
        full = self.stem(images)
        half = self.to_half(full)
        quarter = self.to_quarter(half)
        coarse = [self.describe_coarse(quarter)]
        correlated = coarse if self.describe_fine is None else [*coarse, self.describe_fine(half)]
        return Depths([full, half, quarter], correlated)


class _Residual(nn.Module):
    """Residual block with a projection where the number of channels changes."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.norm = nn.InstanceNorm2d(out)
        self.beside = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, maps: Float[Tensor, "images channels rows columns"]) -> Float[Tensor, "images out rows columns"]:
        hidden = relu(self.norm(self.first(maps)))
        return relu(self.beside(maps) + relu(self.norm(self.second(hidden))))


class _Update(nn.Module):
    """Correction of each corner from correlation and flow on `cells` x `cells`, pooled down to 2 x 2."""

    def __init__(self, cells: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = LEVELS * (2 * RADIUS + 1) ** 2 + 2
        for _ in range(int(log2(cells)) - 1):
            layers += [*_layer(width, channels), nn.MaxPool2d(2)]
            width = channels
        self.layers = nn.Sequential(*layers, *_layer(width, channels), nn.Conv2d(channels, 2, 1))

    def forward(self, maps: Float[Tensor, "pairs values rows columns"]) -> Float[Tensor, "pairs 4 2"]:
        top_left, top_right, bottom_left, bottom_right = self.layers(maps).flatten(2).unbind(2)
        return torch.stack([top_left, top_right, bottom_right, bottom_left], dim=1)


def _layer(channels: int, out: int) -> list[nn.Module]:
    groups = max(1, out // _CHANNELS_PER_GROUP)
    return [nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(groups, out), nn.ReLU()]
