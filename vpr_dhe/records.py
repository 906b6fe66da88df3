"""The typed records that travel between stages: frozen, with tensor shapes in their types."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

Image: TypeAlias = UInt8[np.ndarray, "_height _width 3"]
"""A decoded image: RGB, 8 bits per channel, upright (EXIF orientation already applied)."""


StrPath: TypeAlias = str | os.PathLike[str]
"""A path as callers may give it."""

Progress: TypeAlias = Callable[[int], object]
"""What long work calls with the number of images it has just dealt with."""

StartProgress: TypeAlias = Callable[[str, int], Progress]
"""What long work tells in a few words what it begins, and of how many parts; it calls the answer with parts done."""


def without_progress(_description: str, _total: int) -> Progress:
    """Tell nobody."""
    return lambda _: None


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


class Grid(NamedTuple):
    """Rows and columns of a dense feature map; its cells partition the extractor's input evenly, row-major."""

    rows: int
    columns: int


class Frame(NamedTuple):
    """The two pixel frames of one image: as it was decoded, and as the extractor or matcher saw it.

    `geometry.coordinates` converts between them; nothing else does.
    """

    image_size: Size
    input_size: Size


@dataclass(frozen=True)
class GeoPosition:
    """A WGS84 position in degrees."""

    latitude_deg: float
    longitude_deg: float


RECONSTRUCTION = "reconstruction"
"""The reference of positions in the world of a reconstruction: they can be compared, but are no metres."""


@dataclass(frozen=True)
class MetricPosition:
    """A position in `reference`, in metres east and north: "UTM 31U", or "local" for a frame of the caller's own.

    The one exception is the reference RECONSTRUCTION, whose axes and unit may be any.
    """

    x_m: float
    y_m: float
    reference: str = "local"


Position: TypeAlias = GeoPosition | MetricPosition


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one image besides its pixels; `path` is relative to the folder it was found in.

    `heading_deg` is where the camera looked, clockwise from north; `timestamp_s` is when, in seconds since the Unix
    epoch (1970-01-01, UTC).
    """

    path: str
    position: Position | None = None
    heading_deg: float | None = None
    timestamp_s: float | None = None


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded image to a network's input.

    In the order of operations that `order` names: scale to [0, 1]; resize the tensor to exactly `width` x `height`, the
    aspect ratio not kept ("squeeze"), so that every image has the same grid; subtract `mean` and divide by `std` per
    RGB channel. There is one mode and one order today; model files state them so that another is never taken for it.
    """

    width: int
    height: int
    interpolation: Literal["bilinear", "bicubic", "area"]
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "squeeze"
    order: tuple[str, ...] = ("to_unit_range", "resize", "normalise")

    @property
    def size(self) -> Size:
        """The input size in pixels."""
        return Size(self.width, self.height)


@dataclass(frozen=True)
class Features:
    """One image as the index sees it: a global vector for retrieval, a dense local map for verification.

    `local_map` has one unit-norm row per cell of `grid`, row-major.
    """

    global_descriptor: Float[Tensor, " dimension"]
    local_map: Float[Tensor, "cells local_dimension"]
    grid: Grid
    frame: Frame


@dataclass(frozen=True)
class Matches:
    """One-to-one correspondences of a query with one candidate, in the input frame of each.

    `tolerance_px` says how exact the points are: the reprojection error, in pixels of the candidate's input, up to
    which a match supports a homography unless the caller says otherwise.
    """

    query_points: Float64[Tensor, "matches 2"]
    candidate_points: Float64[Tensor, "matches 2"]
    similarity: Float[Tensor, " matches"]
    tolerance_px: float


@dataclass(frozen=True)
class DenseAlignment:
    """Where every pixel of a query lies in a candidate, by several homographies and a flow on top of them.

    The images of `homographies` are the originals, query to candidate; the first explains the most. `flow_px` and
    `matchability` lie on a grid of the query's own aspect that partitions it evenly: how far, in pixels of the
    originals, the pixel at a cell's centre has moved, and in [0, 1] how sure it is that the candidate shows it at all.
    `homography_of` says which homography each cell was aligned by.

    Source: Shen et al., "RANSAC-Flow", ECCV 2020, section 3.3.
    """

    homographies: Float64[np.ndarray, "planes 3 3"]
    flow_px: Float32[np.ndarray, "height width 2"]
    matchability: Float32[np.ndarray, "height width"]
    homography_of: Int64[np.ndarray, "height width"]


@dataclass(frozen=True)
class Evidence:
    """What an estimator knows of a candidate besides its homography: reported beside the inliers, never ranked by.

    `value` is a number in words of the estimator's own, such as `matchable_area`; `alignment` is for pictures.
    """

    name: str
    value: float
    alignment: DenseAlignment | None = None


@dataclass(frozen=True)
class Verification:
    """How well one homography explains the matches of a query with one candidate.

    `homography` maps query pixels to candidate pixels, both of the original images, with H[2, 2] = 1; it is None
    where the estimate failed, and then there are no inliers and `score` is 0. The points are the matches that agree
    with it, in original pixels. `evidence` is what the estimator has to say besides.
    """

    homography: Float64[np.ndarray, "3 3"] | None
    score: float
    query_points: Float64[np.ndarray, "inliers 2"]
    candidate_points: Float64[np.ndarray, "inliers 2"]
    evidence: Evidence | None = None

    @property
    def inliers(self) -> int:
        """Number of matches that agree with the homography."""
        return len(self.query_points)


NOT_VERIFIED = Verification(None, 0.0, np.empty((0, 2)), np.empty((0, 2)))
"""Nothing was found, or nothing was looked at: a candidate beyond those that are re-ranked."""


@dataclass(frozen=True)
class RankedMatch:
    """One answer to "where was this photo taken?"; `rank` starts at 1.

    `similarity` is the cosine of the global descriptors (1 - d^2 / 2 for models searched by L2 distance d). `score`
    is the verifier's, or the similarity itself where there was no verifier; `verification` is None then. `probability`
    is how likely it is that the match shows the query's place: of the best match, where the index is calibrated for the
    verifier; None otherwise, and of all other matches. `id` is the image's in the index, which it keeps for life.
    """

    rank: int
    image: str
    similarity: float
    score: float
    verification: Verification | None
    position: Position | None
    probability: float | None = None
    id: int | None = None

    @property
    def inliers(self) -> int:
        """Number of inliers; 0 where nothing was verified."""
        return self.verification.inliers if self.verification else 0

    @property
    def homography(self) -> Float64[np.ndarray, "3 3"] | None:
        """The homography from query to database image, in original pixels, where there is one."""
        return self.verification.homography if self.verification else None


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of the three stages of one query; decoding the query counts as extraction."""

    extract_ms: float
    search_ms: float
    rerank_ms: float


@dataclass(frozen=True)
class PositionEstimate:
    """Where a photo was taken, by several matches together, and how sure that is.

    `position` is of the same kind as those of the images. `covariance_m2` is in metres, east then north. `matches`
    counts what was used. `heading_deg` is where the camera looked, clockwise from north; None unless intrinsics and
    headings of images are known.
    """

    position: Position
    covariance_m2: Float64[np.ndarray, "2 2"]
    matches: int
    heading_deg: float | None = None

    @property
    def semi_axes_m(self) -> tuple[float, float]:
        """Standard deviations along the axes of the ellipse, the longer one first."""
        shorter, longer = np.sqrt(np.linalg.eigvalsh(self.covariance_m2)).tolist()
        return longer, shorter

    @property
    def orientation_deg(self) -> float:
        """Where the longer axis points, clockwise from north, from 0 to 180."""
        east, north = np.linalg.eigh(self.covariance_m2).eigenvectors[:, 1].tolist()
        return math.degrees(math.atan2(east, north)) % 180


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion: focal lengths and principal point in pixels of the original image."""

    focal_x_px: float
    focal_y_px: float
    centre_x_px: float
    centre_y_px: float

    @property
    def matrix(self) -> Float64[np.ndarray, "3 3"]:
        """The calibration matrix K."""
        return np.array(
            [[self.focal_x_px, 0.0, self.centre_x_px], [0.0, self.focal_y_px, self.centre_y_px], [0.0, 0.0, 1.0]]
        )


@dataclass(frozen=True)
class Cameras:
    """The camera of the queries and that of the indexed images."""

    query: Intrinsics
    database: Intrinsics


@dataclass(frozen=True)
class Localization:
    """The answer to one query: matches best first, or none where the place is unknown.

    `estimate` is where the verified matches together say it was taken, where their positions are known.
    `missing_shards` names the parts of a sharded index that did not answer: what they hold is not among the matches.
    `rejected` is the best match where it was less probable than the caller asked for. `known` says whether the place is
    taken to be in the index; None where no probability was asked for, and so nobody judged.
    """

    matches: tuple[RankedMatch, ...]
    timing: Timing
    missing_shards: tuple[str, ...] = ()
    estimate: PositionEstimate | None = None
    rejected: RankedMatch | None = None
    known: bool | None = None


@dataclass(frozen=True)
class PlaceBelief:
    """One place that the camera may be at, by its likeliest image; `probability` includes those around it."""

    image: str
    probability: float
    position: Position | None


@dataclass(frozen=True)
class Belief:
    """Where the camera may be: places, likeliest first, and the probability that it is at none of the map's."""

    places: tuple[PlaceBelief, ...]
    unknown: float

    @property
    def best(self) -> PlaceBelief | None:
        """The likeliest place; None where to be at no known place is likelier."""
        return self.places[0] if self.places and self.places[0].probability > self.unknown else None
