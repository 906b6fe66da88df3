"""Connection to a Ray cluster."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.extras import require_extra

_REACHABLE_S = 5.0


def import_ray() -> ModuleType:
    """Import Ray with Ray Data.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return require_extra("distributed")


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Join a Ray cluster and leave it at the end; a process that has already joined a cluster stays connected.

    Args:
        address: HOST:PORT of a cluster that this machine belongs to, or `auto` for the cluster running here; if there
            is none, `auto` starts Ray on this machine only and stops it at the end.

    Raises:
        BadInputError: if there is no cluster at the address.
        MissingExtraError: if Ray is not installed.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    # Ray reports dead workers on stdout regardless of logging settings, but stdout is for results.
    with redirect_stdout(sys.stderr):
        _join(ray, address)
        try:
            yield
        finally:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address != AUTO:
        _require_reachable(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address == AUTO and isinstance(error, ConnectionError):
            ray.init(address="local", include_dashboard=False, **quiet)
            return
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"the Ray cluster at {address} cannot be joined ({reason}); start Ray on this machine with "
            f"`ray start --address={address}`, set RAY_AUTH_MODE=token if that prints that the cluster needs a token, "
            f"or use {AUTO!r}"
        ) from error


def _require_reachable(address: str) -> None:
    """Check within seconds whether anything listens at an address; `ray.init` takes minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise BadInputError(f"{address!r} is not the address of a Ray cluster; expected HOST:PORT, or {AUTO!r}")
    try:
        socket.create_connection((host, int(port)), _REACHABLE_S).close()
    except (OSError, OverflowError) as error:
        raise BadInputError(
            f"nothing answers at {address} ({error}); give HOST:PORT as `ray start --head` printed it, or {AUTO!r}"
        ) from error
