"""Network files: weights of one homography estimator that do not belong to an extractor."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from vpr_dhe.errors import ModelError
from vpr_dhe.models.model_file import Origin
from vpr_dhe.models.weights_file import WeightsFormat, read_weights, write_weights
from vpr_dhe.records import StrPath

FORMAT = WeightsFormat("vpr-dhe network 1", "network file", "give one that `vpr-dhe train` made, or train it again")

Settings = TypeVar("Settings")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class NetworkFile:
    """Weights of the estimator named `method`.

    `settings` are arguments of the network's constructor; `training_data` states the data, their licences and the
    length of training. `origin` is set for converted checkpoints.
    """

    method: str
    settings: Mapping[str, str | int | float | None]
    licence: str
    training_data: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    origin: Origin | None = None

    @property
    def name(self) -> str:
        """Name for messages: that of the method."""
        return self.method

    def save(self, path: StrPath) -> None:
        """Write the network to a file.

        Raises:
            ModelError: if the name does not end in .safetensors, or its folder does not exist.
        """
        path = Path(path)
        metadata = {
            "method": self.method,
            "settings": dict(self.settings),
            "licence": self.licence,
            "training_data": self.training_data,
            **({} if self.origin is None else {"origin": asdict(self.origin)}),
        }
        write_weights(path, FORMAT, metadata, self.tensors)

    def settings_as(self, kind: type[Settings]) -> Settings:
        """Convert the settings to a dataclass.

        Raises:
            ModelError: if their names are not its fields.
        """
        try:
            return kind(**self.settings)
        except TypeError as error:
            expected = ", ".join(one.name for one in fields(kind))  # pyright: ignore[reportArgumentType]
            raise ModelError(
                f"the network file of {self.method} has the settings {dict(self.settings)}; expected {expected}; "
                "train it again with this version"
            ) from error

    def load_into(self, network: Network) -> Network:
        """Load the weights strictly into a network, and return it.

        Raises:
            ModelError: if they belong to another network.
        """
        try:
            network.load_state_dict(
                {
                    name: value.float() if value.is_floating_point() else value  # batch counters are integers
                    for name, value in self.tensors.items()
                }
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"the network file of {self.method} does not fit its network: {reason}; train it again"
            ) from error
        return network


def network_file(
    method: str, settings: object, network: nn.Module, *, training_data: str, licence: str = "the user's own"
) -> NetworkFile:
    """Make a network file from a network's current weights; `settings` is a dataclass."""
    tensors = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    stored: Any = settings
    return NetworkFile(method, asdict(stored), licence, training_data, tensors)


def load_network(path: StrPath) -> NetworkFile:
    """Read a network file and check its digest.

    Raises:
        ModelError: if the file is missing, damaged, or not a network file of this format.
    """
    path = Path(path)
    metadata, tensors = read_weights(path, FORMAT)
    try:
        known = {name: metadata[name] for name in ("method", "settings", "licence", "training_data")}
        origin = Origin(**metadata["origin"]) if "origin" in metadata else None
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} has incomplete metadata ({error}); {FORMAT.remedy}") from error
    return NetworkFile(**known, tensors=tensors, origin=origin)


def load_networks(paths: Iterable[StrPath]) -> dict[str, NetworkFile]:
    """Read network files; returns them by method.

    Raises:
        ModelError: if one is missing or damaged, or two are for the same method.
    """
    networks: dict[str, NetworkFile] = {}
    for path in paths:
        network = load_network(path)
        if network.method in networks:
            raise ModelError(f"{path} is a second network file for {network.method}; give one for each method")
        networks[network.method] = network
    return networks
