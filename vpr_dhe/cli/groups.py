"""Options that several commands share, as one parameter of each."""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import Parameter, Signature
from typing import Any, get_type_hints


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of the dataclasses among its parameters.

    Typer makes options of a function's signature and annotations. The function returned has those of the fields in the
    place of those of the dataclasses, and builds the dataclasses when it is called.

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
    described: Any = call
    described.__signature__ = Signature(parameters)
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return described


def _options(group: type[Any]) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name])


def _named_only(parameter: Parameter, hint: object) -> Parameter:
    """Parameters by name can follow each other in any order, with a default and without."""
    return parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint)


def _default(field: Field[Any]) -> object:
    return Parameter.empty if field.default is MISSING else field.default
