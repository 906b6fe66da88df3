"""Interface of homography estimators, and their input: views of images and matches between them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.geometry.homography import is_usable
from vpr_dhe.geometry.matching import MutualNeighbours, mutual_nearest_neighbours
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import EstimatorDetails, Features, Frame, Grid, Image, Matches, Size

# A homography has eight degrees of freedom, and a match fixes two.
MIN_MATCHES = 4


@dataclass(frozen=True)
class Homographies:
    """One homography per candidate, from the query's original pixels to the candidate's; failures are not `valid`.

    The matrix of a failed estimate is the identity, so that batched arithmetic stays finite. `details` has one entry
    per candidate, or is None for estimators that report none. `matched` is set by estimators with a matcher of their
    own, whose matches count instead of those of the views.
    """

    matrices: Float64[Tensor, "candidates 3 3"]
    valid: Bool[Tensor, " candidates"]
    details: tuple[EstimatorDetails, ...] | None = None
    matched: "MatchedViews | None" = None

    @classmethod
    def of(
        cls,
        matrices: Float64[Tensor, "candidates 3 3"],
        valid: Bool[Tensor, " candidates"],
        details: tuple[EstimatorDetails, ...] | None = None,
    ) -> "Homographies":
        """Make a batch with the identity in place of failed estimates."""
        identity = torch.eye(3, dtype=torch.float64, device=matrices.device)
        return cls(torch.where(valid[:, None, None], matrices, identity), valid, details)

    @classmethod
    def joined(cls, found: Sequence[Float64[np.ndarray, "3 3"] | None]) -> "Homographies":
        """Make a batch of separate estimates; None and unusable matrices count as failures."""
        if not found:
            return cls(torch.empty(0, 3, 3, dtype=torch.float64), torch.empty(0, dtype=torch.bool))
        estimated = torch.tensor([one is not None for one in found], dtype=torch.bool)
        matrices = torch.from_numpy(np.stack([np.eye(3) if one is None else one for one in found]))
        return cls.of(matrices, estimated & is_usable(matrices))


@runtime_checkable
class ImageCache(Protocol):
    """Storage of what verifiers extract from one database image, between queries; it may forget at any time."""

    def read(self, kind: str) -> bytes | None:
        """Content that was written as `kind`; None if there is none."""
        ...

    def write(self, kind: str, content: bytes) -> None:
        """Store content as `kind`, if possible."""
        ...


class View:
    """Input of estimators for one image; each part is computed on first use and kept.

    `image` is the decoded original, `features` its descriptors, `matches` its mutual matches with the query (a query
    has none), and `cache` stores what is extracted from a database image. A part that the view was made without raises
    LookupError.
    """

    def __init__(
        self,
        frame: Frame,
        image: Callable[[], Image] | None = None,
        features: Callable[[], Features] | None = None,
        matches: Callable[[], Matches] | None = None,
        cache: Callable[[], ImageCache] | None = None,
    ) -> None:
        self.frame = frame
        self._image, self._features, self._matches, self._cache = image, features, matches, cache

    @classmethod
    def of_image(cls, image: Image) -> "View":
        """View of a decoded image, in its own pixels."""
        return cls(Frame(image_size(image), image_size(image)), lambda: image)

    @classmethod
    def of_matches(cls, frame: Frame, matches: Matches) -> "View":
        """View of a candidate that holds its matches alone."""
        return cls(frame, matches=lambda: matches)

    @cached_property
    def image(self) -> Image:
        """The decoded original image."""
        return self._decode()

    def decode(self) -> Image:
        """Decode the original image without keeping it, as for many large candidates of which little is needed."""
        return self.image if "image" in vars(self) else self._decode()

    def _decode(self) -> Image:
        if self._image is None:
            raise LookupError("this view was made without an image")
        return self._image()

    @cached_property
    def cache(self) -> ImageCache | None:
        """Storage of what is extracted from the image; None if there is none, as for queries."""
        return None if self._cache is None else self._cache()

    @cached_property
    def features(self) -> Features:
        """Global descriptor and local map."""
        if self._features is None:
            raise LookupError("this view was made without features")
        return self._features()

    @property
    def is_blank(self) -> bool:
        """Whether features are known, and no cell of theirs can match."""
        return self._features is not None and self.features.is_blank

    @cached_property
    def matches(self) -> Matches:
        """Mutual matches of the query with this candidate."""
        if self._matches is None:
            raise LookupError("this view was made without matches, as that of a query is")
        return self._matches()


@dataclass(frozen=True)
class MatchedViews:
    """A query and its candidates with matches that an estimator found by itself, in frames of its own."""

    query: View
    candidates: tuple[View, ...]


class HomographyEstimator(ABC):
    """Estimator of the homographies from a query to each of its candidates.

    `uses_images` tells whether it estimates from pixels instead of matches: its homography may be right even where no
    match agrees with it. `is_coarse` tells whether its homographies are a start for `align` to refine by keypoints.
    `coarse_pass` tells whether, of many candidates of a query, it is worth verifying only those that a coarse pass over
    the local maps selects. `chance_inliers` is the number of inliers among matches of its own that unrelated images
    seldom have; `align` counts fewer as a failure.
    """

    name: str
    uses_images: bool = False
    is_coarse: bool = False
    coarse_pass: bool = False
    chance_inliers: int = 0

    @abstractmethod
    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; a failure is marked, never raised and never NaN."""


def match_by_grid(
    query: Features, local_maps: Float[Tensor, "candidates cells local_dimension"], spec: ExtractorSpec
) -> Callable[[int], Matches]:
    """Match a query's local map with those of all candidates; see `matches_of_cells`."""
    return matches_of_cells(lambda: mutual_nearest_neighbours(query.local_map, local_maps), spec)


def matches_of_cells(match: Callable[[], MutualNeighbours], spec: ExtractorSpec) -> Callable[[int], Matches]:
    """Match a query with all candidates in one batch, on the first call of the function that is returned.

    That function takes the number of a candidate in the batch and returns its matches: centres of the matched cells.
    All maps come from the extractor of `spec`.
    """
    centres = _centres(spec.grid, spec.input_size)
    cell_px = max(spec.input_size.width / spec.grid.columns, spec.input_size.height / spec.grid.rows)
    tolerance_px = spec.tolerance_cells * cell_px

    @cache
    def matches() -> list[Matches]:
        found = match()
        mutual, index = found.mutual.cpu().numpy(), found.index.cpu().numpy()
        similarity = found.similarity.float().cpu().numpy()
        # In NumPy: threads of torch would spin afterwards on the cores that estimators need.
        candidate, cell = mutual.nonzero()
        columns = centres[cell], centres[index[candidate, cell]], similarity[candidate, cell]
        counts = mutual.sum(axis=1).tolist()
        by_candidate = zip(*(torch.from_numpy(column).split(counts) for column in columns), strict=True)
        return [Matches(*of_one, tolerance_px=tolerance_px) for of_one in by_candidate]

    return lambda candidate: matches()[candidate]


@lru_cache(maxsize=16)
def _centres(grid: Grid, input_size: Size) -> Float64[np.ndarray, "cells 2"]:
    return cell_centres(grid, input_size).numpy()
