"""Names of choices that stages share, the same on the command line and in Python."""

from typing import Final, Literal, TypeAlias, get_args

from vpr_dhe.errors import BadInputError

AUTO: Final = "auto"
"""Leaves a choice to the program."""

Runtime: TypeAlias = Literal["auto", "torch", "onnx"]
"""Runs the networks of a model; `auto` is onnx for a folder of `vpr-dhe export`, else torch."""

# Precisions of matrix products; whatever needs more is computed in fp32.
ExtractorPrecision: TypeAlias = Literal["fp32", "bf16"]
HeadPrecision: TypeAlias = Literal["fp32", "bf16", "int8"]
TrainingPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]


def require_choice(value: str, choices: object, name: str) -> None:
    """Raise BadInputError unless a value is one of the names that a `Literal` lists."""
    if value not in get_args(choices):
        raise BadInputError(f"{name} is {value!r}; expected {', '.join(get_args(choices))}")
