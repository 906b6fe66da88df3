"""Registration of commands: each is a module with NAME, EXAMPLES and `run`."""

import functools
import inspect
import time
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Protocol

import typer

from vpr_dhe.cli.shared.groups import with_groups
from vpr_dhe.cli.shared.help import Command
from vpr_dhe.cli.shared.messages import LOG, MessageOptions


class CommandModule(Protocol):
    """Module of one command; `EXAMPLES` has one command line a line."""

    NAME: str
    EXAMPLES: str
    run: Callable[..., None]


def add_command(
    app: typer.Typer,
    command: Any,
    section: str | None = None,
    *,
    wrap: Callable[[Callable[..., None]], Callable[..., None]] = lambda run: run,
) -> None:
    """Add the command of a module to a program, in a section of its help; `wrap` makes the function that it calls."""
    made: CommandModule = command
    register = app.command(name=made.NAME, cls=Command, epilog=made.EXAMPLES, rich_help_panel=section)
    register(with_groups(_with_messages(wrap(made.run))))


def _with_messages(run: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of verbosity, and log how long it takes."""

    @functools.wraps(run)
    def call(messages: MessageOptions, **options: object) -> None:
        messages.apply()
        started = time.monotonic()
        run(**options)
        LOG.info("done in %.1f s", time.monotonic() - started)

    signature = inspect.signature(run)
    added = Parameter("messages", Parameter.KEYWORD_ONLY, annotation=MessageOptions)
    typed: Any = call
    typed.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])
    typed.__annotations__ = {**run.__annotations__, "messages": MessageOptions}
    return typed
