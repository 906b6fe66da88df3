"""Homography between two sensors, a photo and a map, or day and night, by the network that comes with the package.

A registration network estimates the homography roughly. Then A is warped by the estimate, and cells of its features
are matched near where they are, within smaller and smaller radii, which refines the estimate. Cells that also match
without being told where to look are the evidence.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from math import inf
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from vpr_dhe.geometry.coordinates import cell_centres, corners, homographies_between_originals
from vpr_dhe.geometry.homography import is_usable, project, reprojection_errors
from vpr_dhe.geometry.warping import warp
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.network_file import NetworkFile, load_network
from vpr_dhe.records import Frame, Grid, Image, Matches, Size
from vpr_dhe.runtime.tf32 import without_tf32
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, MatchedViews, View
from vpr_dhe.verification.estimators.cross_modal.registration.base import believable, homographies_of, is_a_view
from vpr_dhe.verification.estimators.cross_modal.registration.estimator import squeezed_to
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import MAGSAC

NAME = "cross-modal"
_FILE = "cross-modal.safetensors"
_SIZE = Size(128, 128)
_CORNERS = corners(_SIZE)
# Radius of the matches, and reprojection error of an inlier, of each round; in pixels of _SIZE, as all lengths here.
_ROUNDS_PX = ((16.0, 6.0), (16.0, 6.0), (12.0, 5.0), (8.0, 4.0))
_TOLERANCE_PX = 4.0
_MIN_MATCHES = 12
# With wrong homographies, up to 26 cells agree (docs/experiments/learning.md).
_MIN_AGREEING = 20
# Divides cosines before the softmax over a cell and its neighbours.
_TEMPERATURE = 0.05
_NO_MATCH = -2.0
"""Less than any cosine."""

Homography = Float64[Tensor, "3 3"]
Cells = Float[Tensor, "cells dimension"]


class CrossModalEstimator(HomographyEstimator):
    """Estimates by a registration network and by matches of its features."""

    name = NAME
    uses_images = True

    def __init__(self, network: IterativeNetwork) -> None:
        self.network = network.eval()
        self._magsac = OpenCvEstimator(MAGSAC)
        self._device = next(network.parameters()).device
        grid = self.network.extract(torch.zeros(1, 3, _SIZE.height, _SIZE.width, device=self._device))[0].shape[2:]
        self._centres = cell_centres(Grid(*grid), _SIZE)
        apart_px = torch.cdist(self._centres, self._centres)
        # A cell and its eight neighbours, or, at the border, others as near as those.
        distances_px, self._around = apart_px.topk(9, dim=1, largest=False)
        self._are_adjacent = distances_px < 1.5 * _SIZE.width / grid[1]
        self._are_within = {radius_px: (apart_px <= radius_px).numpy() for radius_px, _ in _ROUNDS_PX}

    @classmethod
    def bundled(cls, device: str = "cpu") -> "CrossModalEstimator":
        """Load the network of the package."""
        with resources.as_file(resources.files("vpr_dhe.models") / "weights" / _FILE) as path:
            return cls.from_file(load_network(path), device)

    @classmethod
    def from_file(cls, file: NetworkFile, device: str = "cpu") -> "CrossModalEstimator":
        """Load a network of the method `iterative`.

        Raises:
            ModelError: if the file is damaged or belongs to another method.
        """
        return cls(file.load_into(file.settings_as(RegistrationSettings).iterative()).to(device))

    @torch.inference_mode()
    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; fewer than 20 cells that agree with it are a failure."""
        if not candidates:
            return Homographies.joined([])
        a = self._squeezed(query.image)
        found = [self._align(a, self._squeezed(view.decode())) for view in candidates]
        frames = [Frame(view.frame.image_size, _SIZE) for view in (query, *candidates)]
        between = homographies_between_originals(torch.stack([one.homography for one in found]), frames[0], frames[1:])
        agree = torch.tensor([one.agreeing >= _MIN_AGREEING for one in found])
        views = tuple(View.of_matches(frame, one.matches) for frame, one in zip(frames[1:], found, strict=True))
        matched = MatchedViews(View(frames[0]), views)
        return replace(Homographies.of(between, agree & is_usable(between)), matched=matched)

    def _squeezed(self, image: Image) -> Float[Tensor, "1 3 height width"]:
        return to_network_input([image], squeezed_to(_SIZE), self._device)

    def _align(self, a: Float[Tensor, "1 3 height width"], b: Float[Tensor, "1 3 height width"]) -> "_Aligned":
        """Refine the network's estimate, and keep the one that the most cells agree with."""
        cells_b = self._cells(b)
        homography, tried = self.register(a, b), list[_Aligned]()
        for radius_px, error_px in _ROUNDS_PX:
            compared = self._compare(a, cells_b, homography)
            tried.append(_Aligned(homography, self._match(compared)))
            refined = self._fit(self._match(compared, radius_px), error_px)
            if refined is None:
                break
            homography = refined
        else:
            tried.append(_Aligned(homography, self._match(self._compare(a, cells_b, homography))))
        return max(reversed(tried), key=lambda one: one.agreeing)

    def register(self, a: Float[Tensor, "1 3 height width"], b: Float[Tensor, "1 3 height width"]) -> Homography:
        """Estimate by the network: the mean of its displacements for the pair and for three mirror images of it."""
        mirrored_a, mirrored_b = (mirrored(self._for_network(image)) for image in (a, b))
        with without_tf32(a.device):
            displacements = mirrored_back(self.network(mirrored_a, mirrored_b)[-1])
        scaled = displacements.mean(dim=0).cpu().double() * _SIZE.width / self.network.size.width
        return homographies_of(believable(scaled, _SIZE), _SIZE)

    def _for_network(self, image: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "1 3 _height _width"]:
        return image if self.network.size == _SIZE else interpolate(image, self.network.size[::-1], mode="area")

    def _cells(self, image: Float[Tensor, "1 3 height width"]) -> Cells:
        """Unit features of the cells of an image."""
        with without_tf32(image.device):
            return normalize(self.network.extract(image)[0].float(), dim=1)[0].flatten(1).mT

    def _compare(self, a: Float[Tensor, "1 3 height width"], cells_b: Cells, homography: Homography) -> "_Compared":
        """Compare the cells of A, warped by a homography, with those of B."""
        back = torch.linalg.inv(homography)
        warped = warp(a, back.to(self._device)[None], _SIZE, beyond="border")
        places = project(back, self._centres)
        shown = ((places > -0.5) & (places < torch.tensor(_SIZE) - 0.5)).all(dim=1)
        similarity = (self._cells(warped) @ cells_b.mT).cpu().numpy()
        similarity[~shown.numpy()] = _NO_MATCH
        return _Compared(places, similarity)

    def _match(self, compared: "_Compared", radius_px: float = inf) -> Matches:
        """Match the cells of A with those of B at most a radius away, one to one."""
        similarity = compared.similarity
        if radius_px < inf:
            similarity = np.where(self._are_within[radius_px], similarity, np.float32(_NO_MATCH))
        # NumPy finds the largest of rows, and the values of the largest of columns, in a tenth of torch's time.
        nearest = similarity.argmax(axis=1)
        best = similarity[np.arange(len(nearest)), nearest]
        mutual = np.flatnonzero((best > _NO_MATCH) & (best == similarity.max(axis=0)[nearest]))
        # Of cells that are equally similar to one cell, the first is matched.
        cells = mutual[np.sort(np.unique(nearest[mutual], return_index=True)[1])]
        points = self._between_cells(torch.from_numpy(similarity[cells]), torch.from_numpy(nearest[cells]))
        places = compared.places[torch.from_numpy(cells)]
        return Matches(places, points, torch.from_numpy(best[cells]), _TOLERANCE_PX)

    def _between_cells(
        self, similarity: Float[Tensor, "matches cells"], nearest: Int64[Tensor, " matches"]
    ) -> Float64[Tensor, "matches 2"]:
        """Mean of the centre of the nearest cell and those around it, weighted by a softmax of their similarities."""
        around = self._around[nearest]
        known = similarity.gather(1, around) / _TEMPERATURE
        weights = known.masked_fill(~self._are_adjacent[nearest], -inf).softmax(dim=1).double()
        return (weights[..., None] * self._centres[around]).sum(dim=1)

    def _fit(self, matches: Matches, error_px: float) -> Homography | None:
        """Fit a homography to matches; None if there are too few, or none that a camera could see."""
        if len(matches.similarity) < _MIN_MATCHES:
            return None
        found = self._magsac.fit(matches.query_points.numpy(), matches.candidate_points.numpy(), error_px)
        if found is None:
            return None
        homography = torch.from_numpy(found)
        is_view = bool(is_a_view(project(homography, _CORNERS) - _CORNERS, _SIZE))
        return homography if is_view and bool(is_usable(homography)) else None


class _Compared(NamedTuple):
    """Places in A of the cells of A in the frame of B, and their similarities with the cells of B."""

    places: Float64[Tensor, "cells 2"]
    similarity: Float32[np.ndarray, "cells cells"]


class _Aligned(NamedTuple):
    """Homography from A to B, and the matches of cells that were sought anywhere."""

    homography: Homography
    matches: Matches

    @property
    def agreeing(self) -> int:
        """Number of matches that the homography explains."""
        errors_px = reprojection_errors(self.homography, self.matches.query_points, self.matches.candidate_points)
        return int((errors_px < self.matches.tolerance_px).sum())


def mirrored(image: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "4 3 height width"]:
    """An image, and what three mirrors make of it: left and right, top and bottom, and both."""
    return torch.cat([image, image.flip(3), image.flip(2), image.flip(2, 3)])


def mirrored_back(displacements: Float[Tensor, "4 4 2"]) -> Float[Tensor, "4 4 2"]:
    """Displacements of the corners of an image by those of its mirror images; see `mirrored`."""
    right, down = torch.tensor([-1.0, 1.0]).to(displacements), torch.tensor([1.0, -1.0]).to(displacements)
    same, across, below, both = displacements
    return torch.stack(
        [same, across[[1, 0, 3, 2]] * right, below[[3, 2, 1, 0]] * down, both[[2, 3, 0, 1]] * right * down]
    )


def build(_: str, resources: Resources) -> CrossModalEstimator:
    """Build the estimator with the network of the package."""
    return CrossModalEstimator.bundled(resources.device)
