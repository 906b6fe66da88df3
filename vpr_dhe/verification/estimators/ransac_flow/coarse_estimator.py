"""The coarse stage of RANSAC-Flow alone, which needs no training."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import UNIT, resizing
from vpr_dhe.geometry.homography import normalise, project
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import EstimatorDetails, Frame, Matches, Size
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, MatchedViews, View
from vpr_dhe.verification.estimators.ransac_flow.coarse import (
    SCALES,
    TOLERANCE,
    Cells,
    CoarseFit,
    CoarseMatches,
    cells_of,
    extract_scales,
    fit,
    match_cells,
)

DETAIL = "planes"
_MAX_PLANES = 3
_MIN_INLIERS = 8
# More cells along each side than an extractor makes of the whole image.
_FINE = 1.5


class CoarseRansacFlowEstimator(HomographyEstimator):
    """Aligns images by homographies from matches at many scales; the detail is how many planes were found.

    The estimate is the homography of the first plane, which most matches agree with.

    Args:
        extractor: extractor of the index, whose local maps are used for the candidates; None extracts local maps of
            both images by `lite-vlad`, at 1.5 times its resolution.
        device: a torch device.
    """

    name = "ransac-flow"
    uses_images = True
    is_coarse = True

    def __init__(self, extractor: Extractor | None = None, device: str = "cpu") -> None:
        self._extractor, self._indexed = extractor or load_extractor(LITE_VLAD, device), extractor is not None

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Align the query with each candidate; too few coarse matches are a failure."""
        if not candidates:
            return Homographies.joined([])
        matches = self._match_cells(query, candidates)
        planes = [find_planes(one, self.tolerance) for one in matches]
        size = query.frame.image_size
        found = Homographies.joined(
            [
                _in_pixels(of_one[0].homography, size, view.frame.image_size).numpy() if of_one else None
                for of_one, view in zip(planes, candidates, strict=True)
            ]
        )
        details = tuple(EstimatorDetails(DETAIL, float(len(of_one))) for of_one in planes)
        return replace(found, details=details, matched=self._matched_views(matches, query, candidates))

    def match(self, query: View, candidates: Sequence[View]) -> MatchedViews:
        """Match a query with each candidate, in pixels of the originals."""
        return self._matched_views(self._match_cells(query, candidates), query, candidates)

    def _match_cells(self, query: View, candidates: Sequence[View]) -> list[CoarseMatches]:
        scales = SCALES if self._indexed else tuple(_FINE * scale for scale in SCALES)
        cells = extract_scales(query.image, self._extractor, scales)
        return list(match_cells(cells, [self._cells(one) for one in candidates]))

    def _matched_views(self, matches: Sequence[CoarseMatches], query: View, candidates: Sequence[View]) -> MatchedViews:
        views = tuple(self._matched(one, query, view) for one, view in zip(matches, candidates, strict=True))
        return MatchedViews(_bare(query.frame.image_size), views)

    @property
    def tolerance(self) -> float:
        """Largest error of an inlier, in `UNIT`."""
        return TOLERANCE if self._indexed else TOLERANCE / _FINE

    def _cells(self, candidate: View) -> Cells:
        """Cells of a candidate: from the index, or extracted now."""
        if self._indexed:
            return cells_of(candidate.features)
        return extract_scales(candidate.decode(), self._extractor, (_FINE,))

    def _matched(self, matches: CoarseMatches, query: View, candidate: View) -> View:
        """View of a candidate with its matches, in pixels of the originals."""
        size = candidate.frame.image_size
        points = (
            project(resizing(UNIT, query.frame.image_size), matches.query),
            project(resizing(UNIT, size), matches.candidate),
        )
        tolerance_px = self.tolerance / UNIT.width * max(size)
        return View.of_matches(Frame(size, size), Matches(*points, torch.ones(len(points[0])), tolerance_px))


def find_planes(matches: CoarseMatches, tolerance: float = TOLERANCE) -> list[CoarseFit]:
    """Fit homographies one by one to the matches that no other explains; the first to all, so it has most inliers."""
    planes: list[CoarseFit] = []
    while len(planes) < _MAX_PLANES:
        found = fit(matches, tolerance)
        if found is None or (planes and int(found.inliers.sum()) < _MIN_INLIERS):
            break
        planes.append(found)
        matches = matches.only(~found.inliers)
    return planes


def _in_pixels(homography: Float64[Tensor, "3 3"], query: Size, candidate: Size) -> Float64[Tensor, "3 3"]:
    return normalise(resizing(UNIT, candidate) @ homography @ resizing(query, UNIT))


def _bare(size: Size) -> View:
    return View(Frame(size, size))
