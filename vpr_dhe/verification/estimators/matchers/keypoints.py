"""Keypoints of each image, extracted once, and matched pair by pair; those of database images are cached.

All of a candidate is rounded to what the cache stores, so that results do not depend on what is in it.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int64
from torch import Tensor

from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.estimators.base import MatchedViews, View
from vpr_dhe.verification.estimators.matchers.base import (
    MatcherEstimator,
    input_frame,
    matched_view,
    network_input,
)

MAX_KEYPOINTS = 512
"""Keypoints per image, the strongest ones."""

_HEADER = struct.Struct("<6I")  # sizes of image and input, number of keypoints and of their dimensions


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one image in pixels of its input, and their descriptors."""

    frame: Frame
    points: Float32[Tensor, "keypoints 2"]
    descriptors: Float16[Tensor, "keypoints dimension"]

    def to_bytes(self) -> bytes:
        """Header, points as float32 and descriptors as float16, little-endian."""
        header = _HEADER.pack(*self.frame.image_size, *self.frame.input_size, *self.descriptors.shape)
        return header + self.points.numpy().astype("<f4").tobytes() + self.descriptors.numpy().astype("<f2").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Keypoints | None":
        """Read what `to_bytes` wrote; None if it is of another layout."""
        if len(content) < _HEADER.size:
            return None
        width, height, input_width, input_height, count, dimension = _HEADER.unpack_from(content)
        if len(content) != _HEADER.size + count * (8 + 2 * dimension):
            return None
        points = np.frombuffer(content, "<f4", 2 * count, _HEADER.size).reshape(count, 2)
        descriptors = np.frombuffer(content, "<f2", count * dimension, _HEADER.size + 8 * count)
        frame = Frame(Size(width, height), Size(input_width, input_height))
        stored = descriptors.reshape(count, dimension)
        return cls(frame, torch.from_numpy(points.astype(np.float32)), torch.from_numpy(stored.astype(np.float16)))


class Pairs(NamedTuple):
    """Numbers of matched keypoints, of the query and of the candidate, and how sure each match is."""

    query: Int64[Tensor, " matches"]
    candidate: Int64[Tensor, " matches"]
    similarity: Float[Tensor, " matches"]


class KeypointMatcher(ABC):
    """Extractor and matcher of keypoints.

    `name` is that of the verifier; `kind` names all that keypoints depend on, and serves as the name of a folder.
    """

    name: str
    kind: str

    @abstractmethod
    def extract(
        self, image: Float32[Tensor, "3 _height _width"]
    ) -> tuple[Float32[Tensor, "keypoints 2"], Float[Tensor, "keypoints dimension"]]:
        """Extract points in pixels of the image, and descriptors; an image without any has none."""

    @abstractmethod
    def match(self, query: Keypoints, candidate: Keypoints) -> Pairs:
        """Match the keypoints of two images, of which neither is without any."""


class KeypointEstimator(MatcherEstimator):
    """Estimates from matched keypoints: one extraction for a query, and none for candidates in the cache."""

    def __init__(self, matcher: KeypointMatcher) -> None:
        super().__init__()
        self.name, self._matcher = matcher.name, matcher

    def match(self, query: View, candidates: Sequence[View]) -> MatchedViews:
        """Match the keypoints of a query with those of each candidate."""
        own = self._extract(query)
        return MatchedViews(View(own.frame), tuple(self._matched(own, self._stored(view)) for view in candidates))

    def _stored(self, view: View) -> Keypoints:
        """Keypoints from the cache of a view, otherwise extracted and put there."""
        content = None if view.cache is None else view.cache.read(self._matcher.kind)
        found = None if content is None else Keypoints.from_bytes(content)
        if found is not None and found.frame == input_frame(view.frame.image_size):
            return found
        extracted = self._extract(view)
        if view.cache is not None:
            view.cache.write(self._matcher.kind, extracted.to_bytes())
        return extracted

    @torch.inference_mode()
    def _extract(self, view: View) -> Keypoints:
        points, descriptors = self._matcher.extract(network_input(view.decode()))
        return Keypoints(input_frame(view.frame.image_size), points.cpu(), descriptors.cpu().half())

    @torch.inference_mode()
    def _matched(self, query: Keypoints, candidate: Keypoints) -> View:
        none = torch.empty(0, dtype=torch.int64)
        both = len(query.points) and len(candidate.points)
        pairs = self._matcher.match(query, candidate) if both else Pairs(none, none, torch.empty(0))
        return matched_view(
            candidate.frame,
            query.points[pairs.query.cpu()].double(),
            candidate.points[pairs.candidate.cpu()].double(),
            pairs.similarity.cpu(),
        )
