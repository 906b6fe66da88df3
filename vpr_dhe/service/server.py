"""A server that ends in order: it answers whom it let in, and refuses everybody else meanwhile."""

import gc
import socket
from types import FrameType

import uvicorn

from vpr_dhe.errors import BadInputError
from vpr_dhe.service.admission import Admission
from vpr_dhe.service.app import build_app
from vpr_dhe.service.place_service import PlaceService

# For answers that are on their way when the last request has been answered.
_LAST_WORDS_S = 5


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, admission: Admission) -> None:
        super().__init__(config)
        self._admission = admission

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """At the first signal stop letting requests in; at the second stop at once."""
        self.should_exit = self.force_exit = self._admission.closed
        self._admission.close()

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is time to go."""
        return await super().on_tick(counter) or self._admission.finished


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any that is free.

    Raises:
        BadInputError: if that is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise BadInputError(f"cannot listen at {host}, port {port} ({error}); give another --host or --port") from error


def serve(service: PlaceService, token: str | None, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and return when everybody who was let in has been answered.

    Raises:
        IndexDamagedError: if stored vectors do not agree with their checksums.
    """
    service.warm_up()
    # What is loaded by now stays: looking through its quarter of a million objects again would hold up every request
    # for a tenth of a second and more.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        build_app(service, token), log_level="warning", access_log=False, timeout_graceful_shutdown=_LAST_WORDS_S
    )
    _Server(config, service.admission).run(sockets=[listening])
