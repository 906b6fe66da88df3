"""Operating systems that the package runs on."""

import sys

from vpr_dhe.errors import UnsupportedSystemError


def require_linux() -> None:
    """Raise UnsupportedSystemError elsewhere: an index needs the file locks and cached reads of Linux."""
    if not sys.platform.startswith("linux"):
        raise UnsupportedSystemError("vpr-dhe runs on Linux; use a container on macOS, or WSL 2 on Windows")
