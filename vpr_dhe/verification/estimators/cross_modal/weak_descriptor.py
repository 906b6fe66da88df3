"""Patch descriptor learned on aligned pairs, at SIFT keypoints, for modalities whose SIFT descriptors do not match.

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
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import Frame, Image, Matches
from vpr_dhe.runtime.tf32 import without_tf32
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.levels import as_tensor, standardised
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import PatchNetwork
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import SIDE, PatchFrames, sample_patches
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import MAGSAC

NAME = "weak-descriptor"
# Patch width as a multiple of OpenCV's diameter of a keypoint: SIFT's own descriptor covers twelve times sigma.
_WIDTH_OF_DIAMETER = 6.0
# Among matches of unrelated images, fewer agree by chance.
_MIN_INLIERS = 8


@dataclass(frozen=True)
class WeakDescriptorSettings:
    """Settings of the network; `pseudo_siamese` (0 or 1) gives B a separate first layer."""

    pseudo_siamese: int = 0


class WeakDescriptorEstimator(HomographyEstimator):
    """Estimates by MAGSAC from mutual matches of SIFT keypoints with learned descriptors.

    The query takes the role of image A in training, which matters for pseudo-siamese networks.
    """

    name = NAME
    uses_images = True

    def __init__(self, network: PatchNetwork, *, device: str = "cpu") -> None:
        self.network = network.eval().to(device)
        self._magsac = OpenCvEstimator(MAGSAC)

    @classmethod
    def from_file(cls, file: NetworkFile, device: str = "cpu") -> "WeakDescriptorEstimator":
        """Load the network of a file.

        Raises:
            ModelError: if the file holds another kind of network.
        """
        settings = file.settings_as(WeakDescriptorSettings)
        network = file.load_into(PatchNetwork(pseudo_siamese=bool(settings.pseudo_siamese)))
        return cls(network, device=device)

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate; fewer than eight inliers are a failure."""
        if not candidates:
            return Homographies.joined([])
        keypoints = self._extract(query.image, second=False)
        with_matches = [_matched_view(keypoints, self._extract(view.decode(), second=True)) for view in candidates]
        found = self._magsac.estimate(View(keypoints.frame), with_matches)
        pairs = zip(found.matrices, with_matches, strict=True)
        supported = [_count_inliers(matrix, view.matches) >= _MIN_INLIERS for matrix, view in pairs]
        return Homographies.of(found.matrices, found.valid & torch.tensor(supported))

    @torch.inference_mode()
    def _extract(self, image: Image, *, second: bool) -> "_Keypoints":
        frames = detect_frames(image)
        device = self.network.first_a.weight.device
        with without_tf32(device):
            descriptors = self.network.extract(scaled_patches(image, frames).to(device), second=second)
        return _Keypoints(Frame(image_size(image), image_size(image)), frames, descriptors)


@dataclass(frozen=True)
class _Keypoints:
    """Keypoints of one image and their descriptors."""

    frame: Frame
    patches: PatchFrames
    descriptors: Float[Tensor, "keypoints 256"]


def detect_frames(image: Image) -> PatchFrames:
    """Detect the strongest SIFT keypoints, as patches as wide as SIFT's own; flat images have none."""
    detector = cv2.SIFT.create(MAX_KEYPOINTS, contrastThreshold=CONTRAST_THRESHOLD, enable_precise_upscale=True)
    found = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    centres = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
    angles = np.deg2rad(np.array([keypoint.angle for keypoint in found], np.float32))
    scales = np.array([keypoint.size for keypoint in found], np.float32) * (_WIDTH_OF_DIAMETER / SIDE)
    steps = scales[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return PatchFrames(torch.from_numpy(centres), torch.from_numpy(steps))


def scaled_patches(image: Image, frames: PatchFrames) -> Float[Tensor, "patches 3 16 16"]:
    """Sample patches of any scale, each from the octave of the image in which a step is one to two pixels long.

    Patches of a flat image are 0.
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


def _matched_view(query: _Keypoints, candidate: _Keypoints) -> View:
    matches = match_mutually(query.descriptors, candidate.descriptors)
    points = [
        frames.centres[chosen].double()
        for frames, chosen in zip((query.patches, candidate.patches), matches, strict=True)
    ]
    found = Matches(points[0], points[1], torch.ones(len(points[0])), TOLERANCE_PX)
    return View.of_matches(candidate.frame, found)


def match_mutually(a: Float[Tensor, "a dimension"], b: Float[Tensor, "b dimension"]) -> tuple[Tensor, Tensor]:
    """Match mutual nearest neighbours by Euclidean distance; returns their numbers in A and in B."""
    if not len(a) or not len(b):
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    distances = torch.cdist(a, b)
    nearest = distances.argmin(dim=1)
    mutual = distances.argmin(dim=0)[nearest] == torch.arange(len(a), device=a.device)
    return mutual.nonzero()[:, 0].cpu(), nearest[mutual].cpu()


def _count_inliers(homography: Float[Tensor, "3 3"], matches: Matches) -> int:
    errors_px = reprojection_errors(homography, matches.query_points, matches.candidate_points)
    return int((errors_px < matches.tolerance_px).sum())


def build(name: str, resources: Resources) -> WeakDescriptorEstimator:
    """Build the estimator with the network of a file."""
    return WeakDescriptorEstimator.from_file(resources.networks[name], resources.device)
