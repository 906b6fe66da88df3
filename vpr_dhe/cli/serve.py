"""`vpr-dhe serve`: HTTP service over an index."""

import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.options import IndexArgument, IndexModelOptions, RankingOptions, open_localizer
from vpr_dhe.cli.shared.progress import print_stderr, warn_of_calibration

if TYPE_CHECKING:
    from vpr_dhe.service.limits import Limits

NAME = "serve"
EXAMPLES = """
vpr-dhe serve my-index
VPR_DHE_TOKEN=SECRET vpr-dhe serve my-index --port 9000 --stop-early 8
"""
_TOKEN = "VPR_DHE_TOKEN"


@dataclass(frozen=True)
class AddressOptions:
    """Address that the service listens on."""

    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 means all interfaces.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000

    def url(self, port: int) -> str:
        """Address of the service at the port that it listens on."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}"


@dataclass(frozen=True)
class ServiceLimitsOptions:
    """Limits of the service."""

    batch_size: Annotated[int, typer.Option(min=1, help="Maximum number of queries extracted in one batch.")] = 8
    batch_wait_ms: Annotated[
        float, typer.Option(min=0, max=1e4, help="Maximum time that a query waits for others of its batch.")
    ] = 5.0
    queue: Annotated[int, typer.Option(min=1, help="Maximum number of pending requests; more get 429.")] = 64
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Maximum size of a request body; larger ones get 413.")
    ] = 20.0
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Maximum size of an image; larger ones get 422.")
    ] = 50.0
    timeout_s: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Maximum time until an answer; later ones get 503.")
    ] = 30.0

    def build(self) -> "Limits":
        """Build the limits of the service."""
        from vpr_dhe.service.limits import Limits

        return Limits(
            body_bytes=int(1e6 * self.max_body_mb),
            pixels=int(1e6 * self.max_megapixels),
            timeout_s=self.timeout_s,
            queue=self.queue,
            batch_size=self.batch_size,
            batch_wait_s=self.batch_wait_ms / 1e3,
        )


def run(
    index: IndexArgument,
    verification: RankingOptions,
    model: IndexModelOptions,
    address: AddressOptions,
    limits: ServiceLimitsOptions,
) -> None:
    """Localize queries over HTTP; clients with the token in VPR_DHE_TOKEN can add images."""
    from vpr_dhe.runtime.extras import require_extra

    require_extra("serve")
    from vpr_dhe.service.place_service import PlaceService
    from vpr_dhe.service.server import listen, serve

    token = os.environ.get(_TOKEN) or None
    with listen(address.host, address.port) as listening:
        localizer = open_localizer(index, verification, model)
        warn_of_calibration(localizer)
        service = PlaceService(localizer, verification.verifier, limits.build())
        print_stderr(f"{index}: {len(service.index)} images at {address.url(listening.getsockname()[1])}")
        print_stderr(
            "clients with the token can add images" if token else f"images cannot be added: {_TOKEN} is not set"
        )
        if not _is_loopback(address.host):
            print_stderr("anyone who can reach this address can send queries and see the images, without encryption")
        serve(service, token, listening)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
