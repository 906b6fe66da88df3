"""Command line, one file per command."""

from vpr_dhe.cli.app import main

__all__ = ["main"]
