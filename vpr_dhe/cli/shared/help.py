"""Help: options in groups with metavars in words, and examples of each command."""

import re
import types
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

OPTIONS, MESSAGES = "Options", "Help and messages"
OUTPUT = "Output"
"""Titles of groups of options."""

_UNITS = {
    "_m": "METRES",
    "_metres": "METRES",
    "_s": "SECONDS",
    "_seconds": "SECONDS",
    "_minutes": "MINUTES",
    "_ms": "MILLISECONDS",
    "_deg": "DEGREES",
    "_px": "PIXELS",
    "_m_s": "METRES_PER_SECOND",
    "_mb": "MEGABYTES",
    "_megapixels": "MEGAPIXELS",
    "_probability": "PROBABILITY",
}
_RANGES = (
    (re.compile(r"([\d.e+-]+)<=x<=([\d.e+-]+)"), r"\1 to \2"),
    (re.compile(r"x>=([\d.e+-]+)"), r"at least \1"),
    (re.compile(r"x<=([\d.e+-]+)"), r"at most \1"),
)
_GENERAL = ("--verbose", "--quiet", "--help", "--version", "--install-completion", "--show-completion")


def metavar_of(name: str, hint: object) -> str | None:
    """Name of a parameter's value in the help, by its own name and its type; None for flags."""
    kind = _value_type(hint)
    choices = _choices(kind)
    if choices:
        return "|".join(choices)
    if kind is bool:
        return None
    if kind is Path:
        return "FILE"
    if kind in (int, float):
        return _unit(name) or ("N" if kind is int else "NUMBER")
    return "NAME"


def _value_type(hint: object) -> object:
    """Type of a value: of the items of a list, without None."""
    if get_origin(hint) in (Union, types.UnionType):
        [hint] = [one for one in get_args(hint) if one is not type(None)]
    return get_args(hint)[0] if get_origin(hint) is list else hint


def _choices(kind: object) -> Sequence[str]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    return [one.value for one in kind] if isinstance(kind, type) and issubclass(kind, StrEnum) else ()


def _unit(name: str) -> str | None:
    # The longest ending first: metres per second before seconds.
    ending = max((ending for ending in _UNITS if f"_{name}".endswith(ending)), key=len, default=None)
    return None if ending is None else _UNITS[ending]


def explain(name: str, kind: object, info: Any, title: str | None) -> None:
    """Give the declaration of a parameter its metavar and the title of its group, unless it has its own."""
    is_argument = isinstance(info, typer.models.ArgumentInfo)
    if info.metavar is None:
        info.metavar = name.upper() if is_argument else metavar_of(name, kind)
    if not is_argument and info.rich_help_panel is None:
        info.rich_help_panel = title


class Command(TyperCommand):
    """Command whose help lists its options by group, with its examples, one a line of `epilog`, at the end."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the examples."""
        _write_examples(self.epilog, formatter)


class Group(TyperGroup):
    """Group of commands whose help lists them by section."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write commands, then options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None:
                title = getattr(command, "rich_help_panel", None)
                row = (name, " ".join((command.help or "").split()))
                sections.setdefault(title if isinstance(title, str) else "Commands", []).append(row)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the examples."""
        _write_examples(self.epilog, formatter)


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], OPTIONS: []}
    general: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        row = (record[0], in_words(record[1]))
        if parameter.param_type_name == "argument":
            # Some versions of Typer append the type.
            sections["Arguments"].append((row[0].split(" <")[0], row[1]))
        elif set(parameter.opts) & set(_GENERAL):
            general.append(row)
        else:
            title = getattr(parameter, "rich_help_panel", None)
            sections.setdefault(title if isinstance(title, str) else OPTIONS, []).append(row)
    for title, rows in (*sections.items(), (MESSAGES, general)):
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def in_words(text: str) -> str:
    """Text of help with ranges in words."""
    for pattern, words in _RANGES:
        text = pattern.sub(words, text)
    return text


def _write_examples(examples: str | None, formatter: Any) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            # Not wrapped, so that a line can be copied.
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
