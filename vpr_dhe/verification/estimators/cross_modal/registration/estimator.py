"""Estimator of homographies between images of any size by a registration network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.geometry.coordinates import homographies_between_originals
from vpr_dhe.geometry.homography import is_usable
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import Frame, Image, Preprocessing, Size
from vpr_dhe.runtime.tf32 import without_tf32
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.registration.base import (
    RegistrationNetwork,
    believable,
    homographies_of,
    is_a_view,
)
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings, build_registration


class RegistrationEstimator(HomographyEstimator):
    """Squeezes both images to the network's size and converts its homography to the originals.

    An estimate fails where the corners of the query do not form a convex quadrilateral of the same orientation in the
    candidate, because no camera sees such a view.
    """

    uses_images = True

    def __init__(self, network: RegistrationNetwork, *, batch_size: int = 16) -> None:
        self.network, self.batch_size = network.eval(), batch_size

    @classmethod
    def from_file(cls, file: NetworkFile, device: str = "cpu") -> "RegistrationEstimator":
        """Load the network of a network file.

        Raises:
            ModelError: if the file is damaged or belongs to another method.
        """
        return cls(file.load_into(cls.build_network(file)).to(device))

    @classmethod
    def build_network(cls, file: NetworkFile) -> RegistrationNetwork:
        """Build the network of a file's settings without loading its weights."""
        return build_registration(file.settings_as(RegistrationSettings))

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate one homography per candidate, `batch_size` of them at a time."""
        if not candidates:
            return Homographies.joined([])
        size = self.network.size
        found = [
            self._displacements(query.image, candidates[first : first + self.batch_size])
            for first in range(0, len(candidates), self.batch_size)
        ]
        displacements = torch.cat(found).cpu()
        frames = [Frame(view.frame.image_size, size) for view in (query, *candidates)]
        matrices = homographies_of(believable(displacements, size), size)
        between = homographies_between_originals(matrices, frames[0], frames[1:])
        return Homographies.of(between, is_a_view(displacements, size) & is_usable(between))

    @torch.inference_mode()
    def _displacements(self, query: Image, candidates: Sequence[View]) -> Float[Tensor, "candidates 4 2"]:
        device, preprocessing = next(self.network.parameters()).device, squeezed_to(self.network.size)
        a = to_network_input([query], preprocessing, device)
        # One at a time: photos of all candidates may take gigabytes.
        b = torch.cat([to_network_input([view.decode()], preprocessing, device) for view in candidates])
        with without_tf32(device):
            return self.network(a.expand_as(b), b)[-1]


def squeezed_to(size: Size) -> Preprocessing:
    """Preprocessing of registration networks: RGB in [0, 1], squeezed to a size."""
    return Preprocessing(size.width, size.height, "bilinear", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
