"""Corner displacements from a dense optical flow, by a homography fitted to it.

Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020; AltO (Song et al.,
NeurIPS 2024) for RAFT as a registration network.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.geometry.warping import pixel_centres
from vpr_dhe.geometry.weighted_homography import weighted_homography
from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork

# The flow is smooth, so every eighth pixel along each axis is enough.
_STEP_PX = 8


class FlowNetwork(RegistrationNetwork):
    """RAFT (small variant) and a least-squares homography through the flow after each of its iterations.

    Args:
        side_px: side of the images; RAFT needs at least 128.
        iterations: iterations of RAFT.
    """

    def __init__(self, side_px: int = 128, iterations: int = 6) -> None:
        from torchvision.models.optical_flow import raft_small

        super().__init__()
        self.size, self._iterations = Size(side_px, side_px), iterations
        self.raft = raft_small(weights=None)

    def forward(
        self, a: Float[Tensor, "pairs 3 height width"], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements after each iteration."""
        flows = self.raft(2 * a - 1, 2 * b - 1, num_flow_updates=self._iterations)
        return [self._displacements(flow.float()) for flow in flows]

    def _displacements(self, flow: Float[Tensor, "pairs 2 height width"]) -> Float[Tensor, "pairs 4 2"]:
        pixels = pixel_centres(self.size).to(flow.device).unflatten(0, (self.size.height, self.size.width))
        source = pixels[_STEP_PX // 2 :: _STEP_PX, _STEP_PX // 2 :: _STEP_PX].flatten(0, 1)
        moved = source + flow[:, :, _STEP_PX // 2 :: _STEP_PX, _STEP_PX // 2 :: _STEP_PX].flatten(2).mT
        weights = torch.ones(moved.shape[:2], device=flow.device)
        homographies = weighted_homography(weights, source.expand_as(moved), moved)
        square = corners(self.size).to(flow.device)
        return (project(homographies, square) - square).float()
