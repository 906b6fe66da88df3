"""Corner displacements by direct regression from both images.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798), with a ResNet-34 instead of its
VGG-like network.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork


class DirectNetwork(RegistrationNetwork):
    """ResNet-34 with six input channels and eight outputs, in units of the largest displacement in training."""

    def __init__(self, side_px: int = 128) -> None:
        import timm

        super().__init__()
        self.size, self._unit_px = Size(side_px, side_px), side_px / 4
        self.regressor: nn.Module = timm.create_model("resnet34", pretrained=False, in_chans=6, num_classes=8)

    def forward(
        self, a: Float[Tensor, "pairs 3 height width"], b: Float[Tensor, "pairs 3 height width"]
    ) -> list[Float[Tensor, "pairs 4 2"]]:
        """Estimate the displacements; one refinement."""
        outputs = self.regressor(2 * torch.cat([a, b], dim=1) - 1).float()
        return [self._unit_px * outputs.unflatten(1, (4, 2))]
