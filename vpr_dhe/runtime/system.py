"""Operating systems that the package runs on."""

import sys

from vpr_dhe.errors import UnsupportedSystemError


def require_posix() -> None:
    """Raise UnsupportedSystemError on Windows, which lacks the file locks and positional reads of an index."""
    if sys.platform == "win32":
        raise UnsupportedSystemError("vpr-dhe runs on Linux and macOS; on Windows, run it in WSL 2")
