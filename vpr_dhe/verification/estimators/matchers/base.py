"""Base of the estimators with a matcher of their own, and its input: images of bounded size."""

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from threading import RLock

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Image, Matches, Size
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, MatchedViews, View
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.estimators.robust import SEED
from vpr_dhe.verification.names import MAGSAC

SIDE_PX = 512
"""Longer side of the images that are matched."""

_STEP_PX = 32  # that networks reduce an image by
# Reprojection error of an inlier as a share of the longer side: streets are no planes.
_TOLERANCE = 12 / SIDE_PX
# Random numbers of torch, NumPy and Python, and stdout, are of the whole process.
_PROCESS_LOCK = RLock()


class MatcherEstimator(HomographyEstimator):
    """Estimates by `magsac` from the matches of a matcher, which are also what candidates are scored by."""

    uses_images = True
    # Of XFeat, 38 of 40 pairs of street photos of different places had fewer (median 10).
    chance_inliers = 25

    def __init__(self) -> None:
        self._magsac = OpenCvEstimator(MAGSAC)

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; fewer than four matches are a failure."""
        if not candidates:
            return Homographies.joined([])
        matched = self.match(query, candidates)
        found = self._magsac.estimate(matched.query, matched.candidates)
        return replace(found, matched=matched)

    @abstractmethod
    def match(self, query: View, candidates: Sequence[View]) -> MatchedViews:
        """Match a query with each candidate."""


def input_frame(size: Size) -> Frame:
    """Frame of an image that is matched: at most SIDE_PX long, and sides that are multiples of 32 pixels."""
    scale = min(1.0, SIDE_PX / max(size))
    return Frame(size, Size(*(max(_STEP_PX, _STEP_PX * round(scale * side / _STEP_PX)) for side in size)))


def network_input(image: Image) -> Float32[Tensor, "3 _height _width"]:
    """Resize an image to the size of its frame, with values in [0, 1]."""
    size = input_frame(image_size(image)).input_size
    shrinks = size.width * size.height < image.shape[0] * image.shape[1]
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1).float().div(255)


def matched_view(
    frame: Frame,
    query_points: Float64[Tensor, "matches 2"],
    candidate_points: Float64[Tensor, "matches 2"],
    similarity: Float[Tensor, " matches"],
) -> View:
    """View of a candidate that holds its matches alone, in pixels of the inputs."""
    tolerance_px = _TOLERANCE * max(frame.input_size)
    found = Matches(query_points, candidate_points, similarity, tolerance_px)
    return View.of_matches(frame, found)


@contextmanager
def contained(device: str) -> Iterator[None]:
    """Run code of another package, one call at a time: seeded, silent, and without effect on random states."""
    with _PROCESS_LOCK, seeded(SEED, torch.device(device)), redirect_stdout(StringIO()):
        # The global state of NumPy, because that is what they draw from.
        of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
        np.random.seed(SEED)  # noqa: NPY002
        random.seed(SEED)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)
