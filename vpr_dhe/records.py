"""Frozen dataclasses that stages pass to each other, with tensor shapes in their types."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8, UInt16
from torch import Tensor

from vpr_dhe.errors import BadInputError

Image: TypeAlias = UInt8[np.ndarray, "_height _width 3"]
"""Decoded image: RGB, 8 bits per channel, upright (EXIF orientation applied)."""


StrPath: TypeAlias = str | os.PathLike[str]
"""Path argument of public functions."""

Progress: TypeAlias = Callable[[int], object]
"""Callback of long work, called with the number of items just done."""

StartProgress: TypeAlias = Callable[[str, int], Progress]
"""Callback at the start of long work, called with a description and the number of items; returns a `Progress`."""


def without_progress(_description: str, _total: int) -> Progress:
    """Report nothing."""
    return lambda _: None


class GreyLevels(NamedTuple):
    """Grey values of a 16-bit image that map to 0 and 255 in 8 bits; values beyond them are clipped."""

    low: int = 0
    high: int = 65535

    def to_8_bits(self, values: UInt16[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
        """Scale values to 0 to 255."""
        scaled = np.empty(values.shape, np.uint8)
        # Row by row, because the intermediate result takes eight times the memory of the values.
        rows = zip(values, scaled, strict=True) if values.ndim > 1 else [(values, scaled)]
        for row, out in rows:
            exact = (row.astype(np.float64) - self.low) / ((self.high - self.low) / 255)
            out[...] = np.rint(exact).clip(0, 255)
        return scaled


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


class Grid(NamedTuple):
    """Rows and columns of a dense feature map; its cells partition the extractor's input evenly, row-major."""

    rows: int
    columns: int


class Frame(NamedTuple):
    """Size of an image as decoded, and as resized for an extractor or matcher.

    Only `geometry.coordinates` converts between the two.
    """

    image_size: Size
    input_size: Size


@dataclass(frozen=True)
class GeoPosition:
    """WGS84 position in degrees."""

    latitude_deg: float
    longitude_deg: float


RECONSTRUCTION = "reconstruction"
"""Reference of positions in the frame of a reconstruction, which can be compared but are not in metres."""


@dataclass(frozen=True)
class MetricPosition:
    """Position in metres east and north in `reference`: such as "UTM 31U", or "local" for a frame of the user.

    With the reference RECONSTRUCTION, axes and unit are arbitrary.
    """

    x_m: float
    y_m: float
    reference: str = "local"


Position: TypeAlias = GeoPosition | MetricPosition


@dataclass(frozen=True)
class Near:
    """Circle that restricts a search to images at most `within_m` metres from `position`, inclusive.

    In the frame of a reconstruction, the radius is in its unit.

    Raises:
        BadInputError: if a number is not finite, the radius is not above 0, or degrees are out of range.
    """

    position: Position
    within_m: float

    def __post_init__(self) -> None:
        place, radius = self.position, self.within_m
        if not (math.isfinite(radius) and radius > 0):
            raise BadInputError(f"the radius is {radius}; expected metres, above 0")
        if isinstance(place, GeoPosition):
            if not (abs(place.latitude_deg) <= 90 and abs(place.longitude_deg) <= 180):
                raise BadInputError(
                    f"found latitude {place.latitude_deg}, longitude {place.longitude_deg}; expected degrees from -90 "
                    "to 90 and from -180 to 180, the latitude first"
                )
        elif not (math.isfinite(place.x_m) and math.isfinite(place.y_m)):
            raise BadInputError(f"found x {place.x_m}, y {place.y_m}; expected finite numbers")


@dataclass(frozen=True)
class NearbyImages:
    """Numbers of images that a restricted search compares, and of those without a usable position.

    Args:
        near: circle of the search.
        images: number of images in it.
        unplaced: number of images whose position is unknown or in another reference frame.
    """

    near: Near
    images: int
    unplaced: int


@dataclass(frozen=True)
class ImageRecord:
    """Metadata of one image; `path` is relative to the images folder.

    `heading_deg` is the viewing direction, clockwise from north; `timestamp_s` is in seconds since the Unix epoch
    (1970-01-01, UTC).
    """

    path: str
    position: Position | None = None
    heading_deg: float | None = None
    timestamp_s: float | None = None


RESIZE_MODES = ("squeeze", "short_side")
RESIZE_FLOATS, RESIZE_8_BIT = ("to_unit_range", "resize", "normalise"), ("resize", "to_unit_range", "normalise")


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of decoded images for a network.

    Args:
        width: width of the input in pixels.
        height: height of the input in pixels.
        interpolation: interpolation of the resizing.
        antialias: whether resizing applies an antialiasing filter.
        mean: subtracted from each RGB channel in [0, 1].
        std: divides each RGB channel after that.
        resize_mode: `squeeze` resizes to exactly `width` x `height` without keeping the aspect ratio; `short_side`
            keeps the size of an image whose short side is at most that of the input, and shrinks others to that short
            side with their aspect ratio (local maps have the grid of an input of `width` x `height`).
        order: order of the steps. RESIZE_8_BIT resizes the 8-bit image as Pillow does, with antialiasing and rounding
            to 8 bits after each axis.
    """

    width: int
    height: int
    interpolation: Literal["bilinear", "bicubic", "area"]
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "squeeze"
    order: tuple[str, ...] = RESIZE_FLOATS

    @property
    def size(self) -> Size:
        """Input size in pixels."""
        return Size(self.width, self.height)

    @property
    def resizes_8_bit(self) -> bool:
        """Whether the 8-bit image is resized, before it is scaled to [0, 1]."""
        return self.order == RESIZE_8_BIT

    def input_size_of(self, size: Size) -> Size:
        """Input size, in pixels, of an image of this size."""
        if self.resize_mode == "squeeze":
            return self.size
        scale = min(1.0, min(self.size) / min(size))
        return Size(max(1, round(scale * size.width)), max(1, round(scale * size.height)))


@dataclass(frozen=True)
class Features:
    """Features of one image: a global descriptor for retrieval, and a dense local map for verification.

    `local_map` has one row per cell of `grid`, row-major, of unit norm; the row of a cell that matches nothing is zero.
    `code` is a learned binary code, eight bits per byte, most significant bit first; None for models without codes.
    """

    global_descriptor: Float[Tensor, " dimension"]
    local_map: Float[Tensor, "cells local_dimension"]
    grid: Grid
    frame: Frame
    code: UInt8[Tensor, " code_bytes"] | None = None

    @property
    def is_blank(self) -> bool:
        """Whether no cell can match, as in an image of a dark room or a white wall."""
        return not bool(self.local_map.any())


@dataclass(frozen=True)
class Matches:
    """One-to-one matches of a query with one candidate, in the input frame of each.

    `tolerance_px` is the accuracy of the points in pixels of the candidate's input: the default inlier threshold.
    """

    query_points: Float64[Tensor, "matches 2"]
    candidate_points: Float64[Tensor, "matches 2"]
    similarity: Float[Tensor, " matches"]
    tolerance_px: float


@dataclass(frozen=True)
class DenseAlignment:
    """Dense alignment of a query with a candidate, by several homographies and a flow.

    Args:
        homographies: from query to candidate, in original pixels; the first has the most inliers.
        flow_px: displacement (x, y), in original pixels, of the centre of each cell of a regular grid over the query.
        matchability: probability, for each cell, that it is visible in the candidate.
        homography_of: index of the homography that each cell was aligned by.

    Source: Shen et al., "RANSAC-Flow", ECCV 2020, section 3.3.
    """

    homographies: Float64[np.ndarray, "planes 3 3"]
    flow_px: Float32[np.ndarray, "height width 2"]
    matchability: Float32[np.ndarray, "height width"]
    homography_of: Int64[np.ndarray, "height width"]


@dataclass(frozen=True)
class EstimatorDetails:
    """Additional result of an estimator for a candidate, which is reported but not used for ranking.

    `name` and `value` depend on the estimator, such as `matchable_area`; `alignment` is for drawing, and `method` is
    the estimator that `auto` chose.
    """

    name: str
    value: float
    alignment: DenseAlignment | None = None
    method: str | None = None


@dataclass(frozen=True)
class Verification:
    """Result of verifying one candidate of a query.

    `homography` maps query pixels to candidate pixels of the original images, with H[2, 2] = 1. It is None if the
    estimate failed; then there are no inliers and `score` is 0. The points are the inliers, in original pixels.
    `attempted` is False for candidates that were not verified. `inlier_weight` is the mean squared similarity of the
    inliers, or 1 if it is unknown.
    """

    homography: Float64[np.ndarray, "3 3"] | None
    score: float
    query_points: Float64[np.ndarray, "inliers 2"]
    candidate_points: Float64[np.ndarray, "inliers 2"]
    details: EstimatorDetails | None = None
    attempted: bool = True
    inlier_weight: float = 1.0

    @property
    def inliers(self) -> int:
        """Number of inliers."""
        return len(self.query_points)


NOT_VERIFIED = Verification(None, 0.0, np.empty((0, 2)), np.empty((0, 2)), attempted=False)
"""Placeholder for a candidate that was not verified."""

NOTHING_TO_MATCH = Verification(None, 0.0, np.empty((0, 2)), np.empty((0, 2)))
"""Result for a pair of which one image is blank."""


@dataclass(frozen=True)
class RankedMatch:
    """One ranked match of a query.

    Args:
        rank: rank, from 1.
        image: path of the database image.
        similarity: similarity that the search ranked by: cosine of the global descriptors (1 - d^2 / 2 for models
            searched by L2 distance d), after adaptation if the index is adapted.
        score: score of the verifier, or the similarity without a verifier.
        verification: result of the verifier, if there was one.
        position: position of the database image, if known.
        probability: probability that the match shows the query's place; only for the best match, if the index is
            calibrated for the verifier.
        id: id of the database image in the index.
        evidence: value that verified matches are ranked by, if it is not the score: robust z-scores of inliers and
            similarity among the candidates.
        similarity_extracted: similarity of the global descriptors as extracted; None if it is unknown.
        heading_deg: viewing direction of the database image, clockwise from north, if known.
    """

    rank: int
    image: str
    similarity: float
    score: float
    verification: Verification | None
    position: Position | None
    probability: float | None = None
    id: int | None = None
    evidence: float | None = None
    similarity_extracted: float | None = None
    heading_deg: float | None = None

    @property
    def inliers(self) -> int:
        """Number of inliers; 0 without a verification."""
        return self.verification.inliers if self.verification else 0

    @property
    def skipped(self) -> bool:
        """Whether there was a verifier that did not verify this match."""
        return self.verification is not None and not self.verification.attempted

    @property
    def homography(self) -> Float64[np.ndarray, "3 3"] | None:
        """Homography from query to database image in original pixels, if there is one."""
        return self.verification.homography if self.verification else None


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of the stages of one query; extraction includes decoding."""

    extract_ms: float
    search_ms: float
    rerank_ms: float


@dataclass(frozen=True)
class PositionEstimate:
    """Position of a query, estimated from several matches, with its uncertainty.

    `position` is of the same kind as those of the images. `covariance_m2` is in square metres, east then north.
    `matches` is the number of matches that were used. `heading_deg` is the viewing direction, clockwise from north;
    it is None unless intrinsics and the headings of database images are known.
    """

    position: Position
    covariance_m2: Float64[np.ndarray, "2 2"]
    matches: int
    heading_deg: float | None = None

    @property
    def semi_axes_m(self) -> tuple[float, float]:
        """Standard deviations along the axes of the ellipse, the longer first."""
        shorter, longer = np.sqrt(np.linalg.eigvalsh(self.covariance_m2)).tolist()
        return longer, shorter

    @property
    def orientation_deg(self) -> float:
        """Direction of the longer axis, clockwise from north, from 0 to 180."""
        east, north = np.linalg.eigh(self.covariance_m2).eigenvectors[:, 1].tolist()
        return math.degrees(math.atan2(east, north)) % 180


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera without distortion: focal lengths and principal point in pixels of the original image."""

    focal_x_px: float
    focal_y_px: float
    centre_x_px: float
    centre_y_px: float

    @property
    def matrix(self) -> Float64[np.ndarray, "3 3"]:
        """Calibration matrix K."""
        return np.array(
            [[self.focal_x_px, 0.0, self.centre_x_px], [0.0, self.focal_y_px, self.centre_y_px], [0.0, 0.0, 1.0]]
        )


@dataclass(frozen=True)
class Cameras:
    """Intrinsics of the queries' camera and of the database's camera."""

    query: Intrinsics
    database: Intrinsics


CalibrationSource: TypeAlias = Literal["index", "default"]
"""Calibration behind a probability: that of the index, or the default for its model and verifier."""


@dataclass(frozen=True)
class Localization:
    """Result of one query.

    Args:
        matches: matches, best first; empty if the place is unknown.
        timing: time of each stage.
        missing_shards: names of shards that did not answer, whose images are not among the matches.
        estimate: position estimated from the verified matches, if their positions are known.
        rejected: best match, if its probability was below the requested minimum.
        known: whether the place is in the index; None if that was not decided: no minimum probability was requested,
            the query is not blank, and there are images near enough.
        blank: whether the query has too little texture to match anything; its matches have no inliers.
        calibration: source of the calibration for the probability of the best match; None without a probability.
        nearby: restriction of the search to an area; None if the whole index was searched.
    """

    matches: tuple[RankedMatch, ...]
    timing: Timing
    missing_shards: tuple[str, ...] = ()
    estimate: PositionEstimate | None = None
    rejected: RankedMatch | None = None
    known: bool | None = None
    blank: bool = False
    calibration: CalibrationSource | None = None
    nearby: NearbyImages | None = None


@dataclass(frozen=True)
class PlaceBelief:
    """Probability of one place, represented by its most likely image, including the images around it."""

    image: str
    probability: float
    position: Position | None


@dataclass(frozen=True)
class Belief:
    """Belief about the camera's place: places, most likely first, and the probability of an unknown place."""

    places: tuple[PlaceBelief, ...]
    unknown: float

    @property
    def best(self) -> PlaceBelief | None:
        """Most likely place; None if an unknown place is more likely."""
        return self.places[0] if self.places and self.places[0].probability > self.unknown else None
