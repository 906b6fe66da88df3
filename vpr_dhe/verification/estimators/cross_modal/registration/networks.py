"""Registry of registration networks; a new one is one new file, a line here, and its name in `runtime.choices`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vpr_dhe.errors import ModelError
from vpr_dhe.runtime.choices import RegistrationLayout, RegistrationNetworkName
from vpr_dhe.verification.estimators.cross_modal.registration.base import RegistrationNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.direct import DirectNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.flow import FlowNetwork
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import (
    CHANNELS_PER_GROUP,
    IterativeNetwork,
    IterativeOptions,
)

PUBLISHED_WIDTH = 64


@dataclass(frozen=True)
class RegistrationSettings(IterativeOptions):
    """Settings of a registration network, by name; `width`, `scales` and options apply to `IterativeNetwork` only."""

    network: str = "iterative"
    side_px: int = 128
    width: int = PUBLISHED_WIDTH
    iterations: int = 6
    scales: int = 1

    def iterative(self) -> IterativeNetwork:
        """Build the iterative network of these settings, whatever `network` is."""
        return IterativeNetwork(self.side_px, self.width, self.iterations, self.scales, self)


_PUBLISHED = IterativeOptions(
    both_projections=True, scaled_correlation=False, halved_centres=True, homography_of_cells=True
)
LAYOUTS: Mapping[str, IterativeOptions] = {
    RegistrationLayout.ihn: replace(
        _PUBLISHED, projected_shortcuts=True, x_slow_window=True, fine_width=80, fine_iterations=3, warped_scale=True
    ),
    RegistrationLayout.alto: replace(_PUBLISHED, relu_in_residual=False),
    RegistrationLayout.sshnet: replace(_PUBLISHED, projected_shortcuts=True, x_slow_window=True, update="narrow"),
    RegistrationLayout.earlier: IterativeOptions(),
}
"""Options of published iterative networks (github.com/imdumpl78/IHN, songsang7/AltO, Junchen-Yu/SSHNet), and of the
network of earlier versions of this package."""


def narrowed(options: IterativeOptions, width: int) -> IterativeOptions:
    """Options for a network of another width than the published one, with the second scale as much narrower."""
    if options.fine_width is None:
        return options
    groups = max(1, round(options.fine_width * width / PUBLISHED_WIDTH / CHANNELS_PER_GROUP))
    return replace(options, fine_width=CHANNELS_PER_GROUP * groups)


NETWORKS: dict[str, Callable[[RegistrationSettings], RegistrationNetwork]] = {
    RegistrationNetworkName.iterative: RegistrationSettings.iterative,
    RegistrationNetworkName.direct: lambda settings: DirectNetwork(settings.side_px),
    RegistrationNetworkName.flow: lambda settings: FlowNetwork(settings.side_px, settings.iterations),
}


def build_registration(settings: RegistrationSettings) -> RegistrationNetwork:
    """Build a network with random weights.

    Raises:
        ModelError: if the name is unknown.
    """
    if settings.network not in NETWORKS:
        raise ModelError(f"unknown registration network {settings.network!r}; available: {', '.join(NETWORKS)}")
    return NETWORKS[settings.network](settings)
