"""Messages on stderr: how many of them, by -v and -q."""

import logging
import sys
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer

import vpr_dhe

LOG = logging.getLogger("vpr_dhe.cli")
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _State:
    quiet = False


VerboseOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        show_default=False,
        metavar="",
        help="Log what is done and how long it takes; twice for details of errors.",
    ),
]
QuietOption: TypeAlias = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print results and errors alone, without messages and progress.")
]


@dataclass(frozen=True)
class MessageOptions:
    """Verbosity of a command; it adds to that of the program."""

    verbose: VerboseOption = 0
    quiet: QuietOption = False

    def apply(self) -> None:
        """Set the verbosity of this process, unless the program's own options did and there are none here."""
        if self.verbose or self.quiet:
            set_verbosity(self.verbose, quiet=self.quiet)


def set_verbosity(verbose: int, *, quiet: bool) -> None:
    """Set the verbosity of this process: logging, and messages on stderr."""
    _State.quiet = quiet
    logger = logging.getLogger("vpr_dhe")
    if not (verbose or quiet):
        logger.setLevel(logging.NOTSET)
        return
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s", force=True)
    logger.setLevel(logging.ERROR if quiet else _LEVELS[min(verbose, len(_LEVELS) - 1)])
    LOG.info("vpr-dhe %s, Python %s", vpr_dhe.__version__, sys.version.split()[0])


def is_quiet() -> bool:
    """Whether messages and progress are not wanted."""
    return _State.quiet
