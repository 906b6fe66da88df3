"""Groups of options as dataclasses, each one parameter of a command."""

import functools
import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import Parameter, Signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from vpr_dhe.cli.shared.help import explain


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of the dataclasses among its parameters.

    In the help, the options of a dataclass stand below its `TITLE`, if it has one.

    Typer makes options from a function's signature and annotations. The returned function has the fields as parameters
    in place of the dataclasses, which it builds when it is called.

    Raises:
        ValueError: if two options have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    @functools.wraps(command)
    def call(**options: object) -> None:
        built = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**built, **options)

    parameters = [
        option
        for name, parameter in inspect.signature(command).parameters.items()
        for option in (_options(groups[name]) if name in groups else [_named_only(parameter, hints[name])])
    ]
    titles = {field.name: getattr(group, "TITLE", None) for group in groups.values() for field in fields(group)}
    parameters = [_explained(one, titles.get(one.name)) for one in parameters]
    typed: Any = call
    typed.__signature__ = Signature(parameters)
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return typed


def _options(group: type[Any]) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name])


def _named_only(parameter: Parameter, hint: object) -> Parameter:
    """Make a parameter keyword-only, so that one without a default may follow one with a default."""
    return parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint)


def _explained(parameter: Parameter, title: str | None) -> Parameter:
    """Parameter with a declaration of its own, which says what the help needs; others may share the original."""
    kind, *rest = get_args(parameter.annotation) if get_origin(parameter.annotation) is Annotated else [None]
    if not rest:
        return parameter
    info = copy(rest[0])
    explain(parameter.name, kind, info, title)
    return parameter.replace(annotation=Annotated[kind, info])


def _default(field: Field[Any]) -> object:
    return Parameter.empty if field.default is MISSING else field.default
