"""Server with graceful shutdown: it answers admitted requests and refuses new ones meanwhile."""

import gc
import socket
from types import FrameType

import uvicorn

from vpr_dhe.errors import BadInputError
from vpr_dhe.service.admission import Admission
from vpr_dhe.service.app import build_app
from vpr_dhe.service.place_service import PlaceService

# Time to transmit the last responses.
_SHUTDOWN_S = 5


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, admission: Admission) -> None:
        super().__init__(config)
        self._admission = admission

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop admitting requests at the first signal; exit at once at the second."""
        self.should_exit = self.force_exit = self._admission.closed
        self._admission.close()

    async def on_tick(self, counter: int) -> bool:
        """Check, ten times a second, whether all admitted requests are answered."""
        return await super().on_tick(counter) or self._admission.finished


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 picks a free port.

    Raises:
        BadInputError: if that is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise BadInputError(f"cannot listen at {host}, port {port} ({error}); give another --host or --port") from error


def serve(service: PlaceService, token: str | None, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and return when all admitted requests have been answered.

    Raises:
        IndexDamagedError: if stored vectors fail their checksums.
    """
    service.warm_up()
    # Objects loaded so far live forever; scanning them in each full garbage collection would delay requests.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        build_app(service, token), log_level="warning", access_log=False, timeout_graceful_shutdown=_SHUTDOWN_S
    )
    _Server(config, service.admission).run(sockets=[listening])
