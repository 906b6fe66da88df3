"""`vpr-dhe serve`: answer queries over HTTP."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import say, say_calibration
from vpr_dhe.cli.options import IndexModelOptions, VerifierOptions

NAME = "serve"
_TOKEN = "VPR_DHE_TOKEN"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    verification: VerifierOptions,
    model: IndexModelOptions,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any free one.")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries described together at most.")] = 8,
    batch_wait_ms: Annotated[float, typer.Option(min=0, help="How long the first of them waits for others.")] = 5.0,
    queue: Annotated[int, typer.Option(min=1, help="Requests let in and not answered yet; more get 429.")] = 64,
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Largest body in MB; more gets 413.")] = 20.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Largest image; more gets 422.")] = 50.0,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Longest wait for an answer; more gets 503.")] = 30.0,
) -> None:
    """Answer queries over HTTP, and take in images from whoever holds the token in VPR_DHE_TOKEN."""
    from vpr_dhe.runtime.extras import require_extra

    require_extra("serve")
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.service.limits import Limits
    from vpr_dhe.service.place_service import PlaceService
    from vpr_dhe.service.server import listen, serve

    token = os.environ.get(_TOKEN) or None
    limits = Limits(
        body_bytes=int(1e6 * max_body_mb),
        pixels=int(1e6 * max_megapixels),
        timeout_s=timeout_s,
        queue=queue,
        batch_size=batch_size,
        batch_wait_s=batch_wait_ms / 1e3,
    )
    verification.say_if_slow()
    with listen(host, port) as listening:
        localizer = Localizer.open(
            index,
            verifier=verification.verifier,
            rerank=verification.rerank,
            weights=verification.weights or (),
            model=model.model,
            **model.loading(),
        )
        say_calibration(localizer)
        service = PlaceService(localizer, verification.verifier, limits)
        address = f"[{host}]" if ":" in host else host
        say(f"{index}: {len(service.index)} images at http://{address}:{listening.getsockname()[1]}")
        say(f"images are {'taken from whoever sends the token' if token else f'not taken; {_TOKEN} is not set'}")
        if not _is_loopback(host):
            say("whoever can reach this address may ask, and see the images; there is no encryption")
        serve(service, token, listening)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
