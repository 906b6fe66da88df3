"""Iterative homography network: look up the correlation around the current estimate, and correct the estimate.

Source: Cao et al., "Iterative Deep Homography Estimation" (IHN), CVPR 2022.
"""

from dataclasses import dataclass
from math import log2
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, max_pool2d, relu

from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.geometry.homography import project
from vpr_dhe.geometry.warping import sample
from vpr_dhe.records import Grid, Size
from vpr_dhe.verification.estimators.cross_modal.registration.base import (
    InstanceNorm,
    RegistrationNetwork,
    homographies_of,
)

RADIUS = 4
LEVELS = 2
_VALUES = LEVELS * (2 * RADIUS + 1) ** 2 + 2
"""Channels of an update's input: looked up values and the flow."""
CHANNELS_PER_GROUP = 8
_COARSE_STRIDE, _FINE_STRIDE = 4, 2
# A pixel whose neighbours lie outside of the image by more than this share is empty after warping, as published.
_MIN_SHOWN = 0.999


@dataclass(frozen=True, kw_only=True)
class IterativeOptions:
    """Differences between iterative networks; the defaults are those of network files without them.

    Args:
        projected_shortcuts: whether every residual block projects and normalises its shortcut; without, a shortcut is
            projected where the number of channels changes, and not normalised.
        relu_in_residual: whether a ReLU follows the second convolution of a residual block, before the sum.
        both_projections: whether the encoder has a projection at half the side even if only one scale needs it; it then
            takes no part in training.
        scaled_correlation: whether inner products are divided by the square root of the number of channels.
        x_slow_window: whether values of a window are ordered column by column; without, row by row.
        halved_centres: whether the centre c of a window lies at c / 2 on the coarser level; without, at
            (c + 1/2) / 2 - 1/2.
        homography_of_cells: whether the corners that are displaced are the centres of the outer cells; without, those
            of the outer pixels.
        update: layers that compute a correction: `wide` of twice the width, or `narrow` of the width, with two layers
            more before the first pooling.
        fine_width: channels of the update at the second scale; None is as at the first.
        fine_iterations: corrections at the second scale; None is as at the first.
        warped_scale: whether the second scale starts anew from B warped by the estimate of the first; without, it goes
            on from the estimate.
    """

    projected_shortcuts: bool = False
    relu_in_residual: bool = True
    both_projections: bool = False
    scaled_correlation: bool = True
    x_slow_window: bool = False
    halved_centres: bool = False
    homography_of_cells: bool = False
    update: Literal["wide", "narrow"] = "wide"
    fine_width: int | None = None
    fine_iterations: int | None = None
    warped_scale: bool = False


class IterativeNetwork(RegistrationNetwork):
    """IHN of one or two scales.

    Args:
        side_px: side of the images, a power of two.
        width: channels of the first layers; the others have multiples of it. The paper's is 64.
        iterations: corrections at each scale.
        scales: 1 uses features at a quarter of the side, 2 then also those at half the side.
        options: differences between published networks.
    """

    def __init__(
        self,
        side_px: int = 128,
        width: int = 64,
        iterations: int = 6,
        scales: int = 1,
        options: IterativeOptions = IterativeOptions(),
    ) -> None:
        super().__init__()
        self.size, self._options = Size(side_px, side_px), options
        self.encoder = _Encoder(width, options, fine=scales > 1)
        self._strides = (_COARSE_STRIDE, _FINE_STRIDE)[:scales]
        self._iterations = (iterations, options.fine_iterations or iterations)[:scales]
        widths = (2 * width, options.fine_width or 2 * width)[:scales]
        self.updates = nn.ModuleList(
            _NarrowUpdate(side_px // stride, width) if options.update == "narrow" else _Update(side_px // stride, wide)
            for stride, wide in zip(self._strides, widths, strict=True)
        )

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
        return self.register(self.extract(torch.cat([a, b])), b)

    def register(
        self, maps: list[Float[Tensor, "images _ _ _"]], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements from the maps of all A, then all B, and, if a scale warps them, the images B."""
        start = torch.zeros(len(b), 4, 2, device=b.device)
        coarse, *fine = maps
        estimates = self._corrected(start, coarse, scale=0)
        if fine and self._options.warped_scale:
            base = estimates[-1]
            warped = torch.cat([fine[0][: len(b)], self.extract(self._warped(b, base.detach()))[1]])
            estimates += [base + estimate for estimate in self._corrected(start, warped, scale=1)]
        elif fine:
            estimates += self._corrected(estimates[-1], fine[0], scale=1)
        return estimates

    def _corrected(
        self, displacements: Float[Tensor, "pairs 4 2"], maps: Float[Tensor, "images _ _ _"], scale: int
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Displacements after each iteration at a scale, on maps of A, then of B."""
        map_a, map_b = maps.float().chunk(2)
        lookup = CorrelationLookup(map_a, map_b, self._options)
        estimates: list[Tensor] = []
        for _ in range(self._iterations[scale]):
            cells, flow = self._cells(displacements.detach(), self._strides[scale])
            displacements = displacements + self.updates[scale](torch.cat([lookup(cells), flow], dim=1)).float()
            estimates.append(displacements)
        return estimates

    def _cells(
        self, displacements: Float[Tensor, "pairs 4 2"], stride: int
    ) -> tuple[Float[Tensor, "pairs cells 2"], Float[Tensor, "pairs 2 rows columns"]]:
        """Positions of the cells of A among those of B, and their displacements, in cells."""
        grid = Grid(self.size.height // stride, self.size.width // stride)
        if self._options.homography_of_cells:
            size = Size(grid.columns, grid.rows)
            centres = cell_centres(grid, size).to(displacements.device)
            mapped = project(homographies_of(displacements / stride, size), centres)
            return mapped.float(), (mapped - centres).float().mT.unflatten(2, grid)
        centres = cell_centres(grid, self.size).to(displacements.device)
        mapped = project(homographies_of(displacements, self.size), centres)
        flow = ((mapped - centres) / stride).float()
        return ((mapped + 0.5) / stride - 0.5).float(), flow.mT.unflatten(2, grid)

    def _warped(
        self, images: Float[Tensor, "pairs 3 height width"], displacements: Float[Tensor, "pairs 4 2"]
    ) -> Float[Tensor, "pairs 3 height width"]:
        """B in the frame of A: sampled along the flow of the coarse cells, enlarged; grey beyond its border."""
        stride = self._strides[0]
        _, flow = self._cells(displacements, stride)
        flow_px = stride * interpolate(flow, scale_factor=stride, mode="bilinear", align_corners=True)
        rows, columns = (torch.arange(side, device=images.device) for side in (self.size.height, self.size.width))
        places = torch.stack([columns + flow_px[:, 0], rows[:, None] + flow_px[:, 1]], dim=-1)
        # Grey is zero in the network's input, [-1, 1].
        shown = sample(torch.ones_like(images), places, "zeros") >= _MIN_SHOWN
        return torch.where(shown, sample(images, places, "zeros"), 0.5)


class CorrelationLookup:
    """Lookup of the all-pairs correlation of two maps around given places, at two resolutions of B.

    Source: IHN (ReLU of the inner products); Teed and Deng, "RAFT", ECCV 2020, section 3.2 (lookup).
    """

    def __init__(
        self,
        map_a: Float[Tensor, "pairs channels rows columns"],
        map_b: Float[Tensor, "pairs channels rows columns"],
        options: IterativeOptions = IterativeOptions(),
    ) -> None:
        pairs, channels, rows, columns = map_a.shape
        self._grid, self._halved_centres = Grid(rows, columns), options.halved_centres
        scale = channels**0.5 if options.scaled_correlation else 1.0
        products = (map_a.flatten(2) / scale).mT @ map_b.flatten(2)
        volume = relu(products.float()).view(pairs * rows * columns, 1, rows, columns)
        self._pyramid = [volume]
        for _ in range(LEVELS - 1):
            self._pyramid.append(avg_pool2d(self._pyramid[-1], 2))
        steps = torch.arange(-RADIUS, RADIUS + 1, device=map_a.device, dtype=torch.float32)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self._window = torch.stack([y, x] if options.x_slow_window else [x, y], dim=-1)

    def __call__(self, places: Float[Tensor, "pairs cells 2"]) -> Float[Tensor, "pairs values rows columns"]:
        """Look up, for each cell of A, the values in a window around its place (x, y) in B, in cells."""
        found = [self._around(places, level) for level in range(LEVELS)]
        return torch.cat(found, dim=2).mT.unflatten(2, self._grid)

    def _around(self, places: Float[Tensor, "pairs cells 2"], level: int) -> Float[Tensor, "pairs cells window"]:
        volume = self._pyramid[level]
        sides = torch.tensor([volume.shape[3], volume.shape[2]], device=volume.device)
        centre = places / 2**level + 0.5 if self._halved_centres else (places + 0.5) / 2**level
        points = (2 * centre / sides - 1).flatten(0, 1)[:, None, None] + 2 * self._window / sides
        values = grid_sample(volume, points, align_corners=False)
        return values.view(*places.shape[:2], -1)


class Depths(NamedTuple):
    """Maps of the encoder's three stages (at full, half and a quarter of the side) and those that are correlated."""

    hidden: list[Tensor]
    correlated: list[Tensor]


class _Encoder(nn.Module):
    """Encoder of images to maps at a quarter of the side and, if `fine`, at half the side."""

    def __init__(self, width: int, options: IterativeOptions, *, fine: bool) -> None:
        super().__init__()
        wider = width * 3 // 2
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, padding=3), InstanceNorm(width), nn.ReLU())
        self.to_half = nn.Sequential(_Halving(), _Residual(width, width, options), _Residual(width, width, options))
        self.to_quarter = nn.Sequential(_Halving(), _Residual(width, wider, options), _Residual(wider, wider, options))
        # These two names are part of the keys of stored weights.
        self.describe_coarse = nn.Conv2d(wider, 4 * width, 1)
        self.describe_fine = nn.Conv2d(width, 4 * width, 1) if fine or options.both_projections else None
        self._fine = fine
        if self.describe_fine is not None:
            self.describe_fine.requires_grad_(fine)

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Depths:
        full = self.stem(images)
        half = self.to_half(full)
        quarter = self.to_quarter(half)
        coarse = [self.describe_coarse(quarter)]
        correlated = [*coarse, self.describe_fine(half)] if self._fine and self.describe_fine is not None else coarse
        return Depths([full, half, quarter], correlated)


class _Halving(nn.Module):
    """Maximum of 2 x 2 cells, for maps of even sides."""

    def forward(self, maps: Float[Tensor, "images channels rows columns"]) -> Float[Tensor, "images channels _ _"]:
        if torch.is_grad_enabled() or maps.is_cuda:
            return max_pool2d(maps, 2)
        # `max_pool2d` also stores indices; on a CPU, this gives the same values in a tenth of its time.
        rows = torch.maximum(maps[..., ::2, :], maps[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class _Residual(nn.Module):
    """Residual block with a projection where the number of channels changes, or always, and normalised."""

    def __init__(self, channels: int, out: int, options: IterativeOptions) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.norm = InstanceNorm(out)
        self.beside: nn.Module = nn.Identity()
        if channels != out or options.projected_shortcuts:
            self.beside = nn.Conv2d(channels, out, 1)
        self._normalised, self._relu = options.projected_shortcuts, options.relu_in_residual

    def forward(self, maps: Float[Tensor, "images channels rows columns"]) -> Float[Tensor, "images out rows columns"]:
        hidden = self.norm(self.second(relu(self.norm(self.first(maps)))))
        beside = self.beside(maps)
        return relu((self.norm(beside) if self._normalised else beside) + (relu(hidden) if self._relu else hidden))


class _Update(nn.Module):
    """Correction of each corner from correlation and flow on `cells` x `cells`, pooled down to 2 x 2."""

    def __init__(self, cells: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = _VALUES
        for _ in range(int(log2(cells)) - 1):
            layers += [*_layer(width, channels), _Halving()]
            width = channels
        self.layers = nn.Sequential(*layers, *_layer(width, channels), nn.Conv2d(channels, 2, 1))

    def forward(self, maps: Float[Tensor, "pairs values rows columns"]) -> Float[Tensor, "pairs 4 2"]:
        return _by_corner(self.layers(maps))


class _NarrowUpdate(nn.Module):
    """Correction of each corner as in SSHNet: a projection, two layers, then layers that pool down to 2 x 2."""

    def __init__(self, cells: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(_VALUES, channels, 1)]
        for _ in range(2):
            layers += _layer(channels, channels)
        for _ in range(int(log2(cells)) - 1):
            layers += [*_layer(channels, channels), _Halving()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 2, 1))

    def forward(self, maps: Float[Tensor, "pairs values rows columns"]) -> Float[Tensor, "pairs 4 2"]:
        return _by_corner(self.layers(maps))


def _by_corner(maps: Float[Tensor, "pairs 2 2 2"]) -> Float[Tensor, "pairs 4 2"]:
    """Vectors of 2 x 2 cells in the order of `coordinates.corners`."""
    top_left, top_right, bottom_left, bottom_right = maps.flatten(2).unbind(2)
    return torch.stack([top_left, top_right, bottom_right, bottom_left], dim=1)


def _layer(channels: int, out: int) -> list[nn.Module]:
    groups = max(1, out // CHANNELS_PER_GROUP)
    return [nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(groups, out), nn.ReLU()]
