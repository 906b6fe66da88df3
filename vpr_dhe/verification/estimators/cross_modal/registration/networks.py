"""Registry of registration networks; a new one is one new file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from vpr_dhe.errors import ModelError
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.direct import DirectNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.flow import FlowNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeNetwork


@dataclass(frozen=True)
class RegistrationSettings:
    """Settings of a registration network, by name; `width` and `scales` apply to `IterativeNetwork` only."""

    network: str = "iterative"
    side_px: int = 128
    width: int = 64
    iterations: int = 6
    scales: int = 1

    def iterative(self) -> IterativeNetwork:
        """Build the iterative network of these settings, whatever `network` is."""
        return IterativeNetwork(self.side_px, self.width, self.iterations, self.scales)


NETWORKS: dict[str, Callable[[RegistrationSettings], RegistrationNetwork]] = {
    "iterative": RegistrationSettings.iterative,
    "direct": lambda settings: DirectNetwork(settings.side_px),
    "flow": lambda settings: FlowNetwork(settings.side_px, settings.iterations),
}


def build_registration(settings: RegistrationSettings) -> RegistrationNetwork:
    """Build a network with random weights.

    Raises:
        ModelError: if the name is unknown.
    """
    if settings.network not in NETWORKS:
        raise ModelError(f"unknown registration network {settings.network!r}; available: {', '.join(NETWORKS)}")
    return NETWORKS[settings.network](settings)
