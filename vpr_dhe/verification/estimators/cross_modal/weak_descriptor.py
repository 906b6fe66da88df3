"""A patch descriptor learned on aligned pairs, at SIFT keypoints: for images that SIFT describes in different ways.

Source: Dong et al., "Learning to Align Images using Weak Geometric Supervision", 3DV 2018 (arXiv:1808.01424), section
on general descriptors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.features.keypoints import CONTRAST_THRESHOLD, MAX_KEYPOINTS, TOLERANCE_PX
from vpr_dhe.geometry.homography import reprojection_errors
from vpr_dhe.images import image_size
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import Frame, Image, Matches
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.levels import as_tensor, standardised
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import PatchNetwork
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import SIDE, PatchFrames, sample_patches
from vpr_dhe.verification.estimators.robust import OpenCvEstimator

NAME = "weak-descriptor"
# Of the diameter that OpenCV states for a keypoint: SIFT's own descriptor looks at twelve times sigma.
_WIDTH_OF_DIAMETER = 6.0
# Of the matches of unrelated images, this many agree by chance.
_LEAST_INLIERS = 8


@dataclass(frozen=True)
class WeakDescriptorSettings:
    """What decides the shape of the network; `pseudo_siamese`, 0 or 1, tells whether B has a first layer of its own."""

    pseudo_siamese: int = 0


class WeakDescriptorEstimator(HomographyEstimator):
    """Describes SIFT keypoints of both images by a network, matches them mutually, and leaves the rest to MAGSAC.

    The query is image A of what the network was trained on, which matters where it is pseudo-siamese.
    """

    name = NAME
    looks_at_images = True

    def __init__(self, network: PatchNetwork, *, device: str = "cpu") -> None:
        self.network = network.eval().to(device)
        self._magsac = OpenCvEstimator("magsac")

    @classmethod
    def from_file(cls, file: NetworkFile, device: str = "cpu") -> "WeakDescriptorEstimator":
        """Take the network of a file.

        Raises:
            ModelError: if it is of another kind.
        """
        settings = file.settings_as(WeakDescriptorSettings)
        network = file.load_into(PatchNetwork(pseudo_siamese=bool(settings.pseudo_siamese)))
        return cls(network, device=device)

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; one with which fewer than eight matches agree is none."""
        if not candidates:
            return Homographies.joined([])
        described = self._describe(query.image, second=False)
        with_matches = [_matched_view(described, self._describe(view.image, second=True)) for view in candidates]
        found = self._magsac.estimate(View(described.frame, lambda: query.image), with_matches)
        pairs = zip(found.matrices, with_matches, strict=True)
        supported = [_count_inliers(matrix, view.matches) >= _LEAST_INLIERS for matrix, view in pairs]
        return Homographies.of(found.matrices, found.valid & torch.tensor(supported))

    @torch.inference_mode()
    def _describe(self, image: Image, *, second: bool) -> "_Described":
        frames = detect_frames(image)
        device = self.network.first_a.weight.device
        descriptors = self.network.describe(scaled_patches(image, frames).to(device), second=second)
        return _Described(Frame(image_size(image), image_size(image)), frames, descriptors)


@dataclass(frozen=True)
class _Described:
    """The keypoints of one image."""

    frame: Frame
    keypoints: PatchFrames
    descriptors: Float[Tensor, "keypoints 256"]


def detect_frames(image: Image) -> PatchFrames:
    """The strongest SIFT keypoints of an image, each as wide as SIFT would describe it; flat images have none."""
    detector = cv2.SIFT.create(MAX_KEYPOINTS, contrastThreshold=CONTRAST_THRESHOLD, enable_precise_upscale=True)
    found = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    centres = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
    angles = np.deg2rad(np.array([keypoint.angle for keypoint in found], np.float32))
    scales = np.array([keypoint.size for keypoint in found], np.float32) * (_WIDTH_OF_DIAMETER / SIDE)
    steps = scales[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return PatchFrames(torch.from_numpy(centres), torch.from_numpy(steps))


def scaled_patches(image: Image, frames: PatchFrames) -> Float[Tensor, "patches 3 16 16"]:
    """Sample patches of any scale, each from the octave of the image in which a step is one or two pixels long.

    A flat image shows 0 everywhere.
    """
    pixels = standardised(image)
    patches = torch.zeros(len(frames.centres), 3, SIDE, SIDE)
    if pixels is None or not len(patches):
        return patches
    octaves = torch.linalg.vector_norm(frames.steps, dim=1).clamp(min=1).log2().floor().long()
    height, width = pixels.shape[:2]
    for octave in range(int(octaves.max()) + 1):
        chosen = octaves == octave
        if octave:
            halved = [max(1, side // 2) for side in (pixels.shape[1], pixels.shape[0])]
            pixels = cv2.resize(pixels, halved, interpolation=cv2.INTER_AREA)
        ratio = torch.tensor([pixels.shape[1] / width, pixels.shape[0] / height])
        inside = PatchFrames((frames.centres[chosen] + 0.5) * ratio - 0.5, frames.steps[chosen] * ratio)
        patches[chosen] = sample_patches(as_tensor(pixels), inside)
    return patches


def _matched_view(query: _Described, candidate: _Described) -> View:
    matches = match_mutually(query.descriptors, candidate.descriptors)
    points = [
        frames.centres[chosen].double()
        for frames, chosen in zip((query.keypoints, candidate.keypoints), matches, strict=True)
    ]
    found = Matches(points[0], points[1], torch.ones(len(points[0])), TOLERANCE_PX)
    return View(candidate.frame, _no_image, matches=lambda: found)


def match_mutually(a: Float[Tensor, "a dimension"], b: Float[Tensor, "b dimension"]) -> tuple[Tensor, Tensor]:
    """Numbers of the descriptors of A and B that are each other's nearest, by Euclidean distance."""
    if not len(a) or not len(b):
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    distances = torch.cdist(a, b)
    nearest = distances.argmin(dim=1)
    mutual = distances.argmin(dim=0)[nearest] == torch.arange(len(a), device=a.device)
    return mutual.nonzero()[:, 0].cpu(), nearest[mutual].cpu()


def _count_inliers(homography: Float[Tensor, "3 3"], matches: Matches) -> int:
    errors_px = reprojection_errors(homography, matches.query_points, matches.candidate_points)
    return int((errors_px < matches.tolerance_px).sum())


def _no_image() -> Image:
    raise LookupError("matches are all that is looked at")
