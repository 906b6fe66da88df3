"""RANSAC-Flow: coarse homographies from matches at several scales, each refined by a fine flow.

Where the paper and its released code differ, this follows the paper: after each homography, its inliers and the matches
that start where the fine flow is sure are removed.

Source: Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import UNIT, cell_centres, corners, resizing
from vpr_dhe.geometry.homography import area_ratio, normalise, project
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.names import SIFT_VLAD
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import DenseAlignment, EstimatorDetails, Grid, Image, Size
from vpr_dhe.runtime.tf32 import without_tf32
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.poselib import PoseLibEstimator
from vpr_dhe.verification.estimators.ransac_flow.coarse import (
    Cells,
    CoarseMatches,
    cells_of,
    extract_scales,
    fit,
    match_cells,
)
from vpr_dhe.verification.estimators.ransac_flow.network import STRIDE_PX, FineNetwork, FineSettings
from vpr_dhe.verification.estimators.ransac_flow.sampling import lies_in, sampled, to_tensor

NAME = "ransac-flow"
DETAIL = "matchable_area"
SURE = 0.95
"""Matchability from which a pixel counts as explained."""
# Inlier tolerance when a homography is refitted to the fine flow, in pixels of the network's input.
_REFINING_TOLERANCE_PX = 1.5
# Smaller shares of the query constrain its corners too little.
_MIN_SHARE_TO_REFINE = 0.25


@dataclass(frozen=True)
class RansacFlowSettings:
    """Settings of RANSAC-Flow.

    Args:
        shorter_side_px: shorter side of the query in the fine network, unless the query itself is smaller.
        max_homographies: largest number of planes.
        min_inliers: fewest coarse inliers of a homography after the first.
        min_gain: smallest share of the query that a homography after the first must add to the matchable area.
    """

    shorter_side_px: int = 240
    max_homographies: int = 3
    min_inliers: int = 8
    min_gain: float = 0.01


@dataclass(frozen=True)
class _Target:
    """The query in the fine network, computed once for all candidates.

    `size` is that of the original, `seen` that of the network's input.
    """

    size: Size
    seen: Size
    features: Float[Tensor, "1 channels rows columns"]


@dataclass(frozen=True)
class _Plane:
    """One aligned plane; `places` are the points (x, y) of the original candidate, for each pixel of the target."""

    homography: Float64[np.ndarray, "3 3"]
    places: Float64[np.ndarray, "height width 2"]
    matchability: Float32[np.ndarray, "height width"]


class RansacFlowEstimator(HomographyEstimator):
    """Aligns images by coarse homographies and a fine flow; the detail is the matchable share of the query.

    The estimate is the homography of the first plane, refitted to the fine flow where that is sure.

    Args:
        network: fine network.
        extractor: extractor of the index, whose local maps are used for the candidates; None extracts local maps of
            both images by `sift-vlad`, whose grid is the finest of the bundled models.
        settings: see `RansacFlowSettings`.
        device: device of the network.
    """

    name = NAME
    uses_images = True

    def __init__(
        self,
        network: FineNetwork,
        extractor: Extractor | None = None,
        settings: RansacFlowSettings = RansacFlowSettings(),
        device: str = "cpu",
    ) -> None:
        self._network, self._device = network.to(device).eval(), torch.device(device)
        self._extractor, self._indexed = extractor or load_extractor(SIFT_VLAD, device), extractor is not None
        self._settings = settings

    @classmethod
    def from_file(cls, file: NetworkFile, extractor: Extractor | None, device: str) -> "RansacFlowEstimator":
        """Load the estimator from a network file.

        Raises:
            ModelError: if the file's weights are not those of a fine network.
        """
        return cls(file.load_into(FineNetwork(file.settings_as(FineSettings))), extractor, device=device)

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Align the query with each candidate; too few coarse matches are a failure."""
        if not candidates:
            return Homographies.joined([])
        cells = extract_scales(query.image, self._extractor)
        target = self._see(query.image)
        found = [
            self._align(target, candidate.image, matches)
            for candidate, matches in zip(
                candidates, match_cells(cells, [self._cells(one) for one in candidates]), strict=True
            )
        ]
        joined = Homographies.joined([None if one is None else self._refined(one, target.size) for one in found])
        details = tuple(_details(one) for one in found)
        return Homographies(joined.matrices, joined.valid, details)

    def _cells(self, candidate: View) -> Cells:
        """Cells of a candidate: from the index, or extracted now."""
        return cells_of(candidate.features if self._indexed else self._extractor.extract([candidate.image])[0])

    @torch.inference_mode()
    def _see(self, query: Image) -> _Target:
        size = image_size(query)
        seen = _size_seen(size, self._settings.shorter_side_px)
        pixels = sampled(query, resizing(seen, size).numpy(), seen)
        with without_tf32(self._device):
            return _Target(size, seen, self._network.extract(to_tensor(pixels, self._device)))

    def _align(self, target: _Target, candidate: Image, matches: CoarseMatches) -> DenseAlignment | None:
        """Find planes one by one, until too few matches remain or a plane adds too little."""
        planes: list[_Plane] = []
        sure = np.zeros((target.seen.height, target.seen.width), bool)
        while len(planes) < self._settings.max_homographies:
            found = fit(matches)
            if found is None or (planes and int(found.inliers.sum()) < self._settings.min_inliers):
                break
            plane = self._plane(target, candidate, found.homography)
            gained = (plane.matchability >= SURE) & ~sure
            if planes and gained.mean() < self._settings.min_gain:
                break
            planes.append(plane)
            sure |= gained
            matches = matches.only(~found.inliers & ~_marked(sure, matches.query))
        return _merged(planes, target) if planes else None

    @torch.inference_mode()
    def _plane(self, target: _Target, candidate: Image, homography: Float64[Tensor, "3 3"]) -> _Plane:
        """Compute the fine flow between the query and the candidate warped by a homography between `UNIT` frames."""
        size = image_size(candidate)
        seen_to_candidate = resizing(UNIT, size) @ homography @ resizing(target.seen, UNIT)
        warped = sampled(candidate, seen_to_candidate.numpy(), target.seen)
        with without_tf32(self._device):
            fine = self._network.compare(self._network.extract(to_tensor(warped, self._device)), target.features)
        flow = fine.flow_px[0].permute(1, 2, 0).double().cpu()
        centres = cell_centres(Grid(target.seen.height, target.seen.width), target.seen).view_as(flow)
        places = project(seen_to_candidate, centres + flow)
        shown = lies_in(places, centres + flow, seen_to_candidate, size)
        matchability = fine.matchability[0, 0].float().cpu() * shown
        original = normalise(seen_to_candidate @ resizing(target.size, target.seen))
        return _Plane(original.numpy(), places.numpy(), matchability.numpy())

    def _refined(self, alignment: DenseAlignment, size: Size) -> Float64[np.ndarray, "3 3"]:
        """Refit the first homography to the fine flow where that is sure; as it is where that is too small an area."""
        height, width = alignment.matchability.shape
        step = STRIDE_PX // 2
        chosen = np.zeros((height, width), bool)
        chosen[step::STRIDE_PX, step::STRIDE_PX] = True
        sure = (alignment.homography_of == 0) & (alignment.matchability >= SURE)
        if sure.mean() < _MIN_SHARE_TO_REFINE:
            return alignment.homographies[0]
        chosen &= sure
        centres = cell_centres(Grid(height, width), size).view(height, width, 2).numpy()[chosen]
        # In pixels of the candidate, of which one of the query may be many.
        # The ratio is positive there, as `fit` requires.
        centre = corners(size).mean(dim=0)
        scale = float(area_ratio(torch.from_numpy(alignment.homographies[0]), centre)) ** 0.5
        tolerance = _REFINING_TOLERANCE_PX * size.width / width * scale
        fitted = PoseLibEstimator().fit(centres, centres + alignment.flow_px[chosen], tolerance)
        return alignment.homographies[0] if fitted is None else fitted / fitted[2, 2]


def _size_seen(size: Size, shorter_side_px: int) -> Size:
    """Input size of the query: sides rounded to multiples of the stride."""
    scale = min(1.0, shorter_side_px / min(size))
    return Size(*(max(STRIDE_PX, round(side * scale / STRIDE_PX) * STRIDE_PX) for side in size))


def _marked(mask: Bool[np.ndarray, "height width"], points: Float64[Tensor, "points 2"]) -> Bool[Tensor, " points"]:
    """Mask of points in `UNIT` that lie on marked pixels of the image."""
    height, width = mask.shape
    pixels = project(resizing(UNIT, Size(width, height)), points).round().long()
    x, y = pixels[:, 0].clamp(0, width - 1), pixels[:, 1].clamp(0, height - 1)
    return torch.from_numpy(mask)[y, x]


def _merged(planes: Sequence[_Plane], target: _Target) -> DenseAlignment:
    """Combine planes: at each pixel the first that is sure, or else the surest."""
    matchability = np.stack([plane.matchability for plane in planes])
    sure = matchability >= SURE
    chosen = np.where(sure.any(axis=0), sure.argmax(axis=0), matchability.argmax(axis=0))
    places = np.take_along_axis(np.stack([plane.places for plane in planes]), chosen[None, ..., None], axis=0)[0]
    height, width = chosen.shape
    centres = cell_centres(Grid(height, width), target.size).view(height, width, 2).numpy()
    return DenseAlignment(
        homographies=np.stack([plane.homography for plane in planes]),
        flow_px=(places - centres).astype(np.float32),
        matchability=np.take_along_axis(matchability, chosen[None], axis=0)[0],
        homography_of=chosen,
    )


def _details(alignment: DenseAlignment | None) -> EstimatorDetails:
    """Share of the query where the flow is sure."""
    area = 0.0 if alignment is None else float((alignment.matchability >= SURE).mean())
    return EstimatorDetails(DETAIL, area, alignment)
