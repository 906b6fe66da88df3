"""Import of packages of optional extras."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import NamedTuple

from vpr_dhe.errors import MissingExtraError


class Extra(NamedTuple):
    """Extra of pyproject.toml: the work that needs it, for messages, and its modules."""

    work: str
    modules: Sequence[str]


EXTRAS: Mapping[str, Extra] = MappingProxyType(
    {
        "bags": Extra("reading bags", ("rosbags", "rosbags.rosbag1", "rosbags.rosbag2", "rosbags.typesys")),
        "distributed": Extra("work on several machines with Ray", ("ray", "ray.data")),
        "export": Extra("conversion to ONNX", ("onnx", "onnxscript")),
        "heic": Extra("reading HEIC photos", ("pillow_heif",)),
        "matchers": Extra("matching by vismatch", ("vismatch",)),
        "rerun": Extra("recording for the viewer Rerun", ("rerun", "rerun.blueprint")),
        "ros2": Extra("a node of ROS 2", ("cyclonedds", "cyclonedds.domain", "cyclonedds.idl")),
        "serve": Extra("a service", ("fastapi", "uvicorn", "prometheus_client", "python_multipart")),
        "train": Extra("training", ("accelerate", "torch.utils.tensorboard")),
    }
)


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # blocked in `sys.modules`
        return False


def require_extra(extra: str) -> ModuleType:
    """Import all modules of an extra, and return the first.

    Raises:
        MissingExtraError: if one of them cannot be imported.
    """
    return import_extra(extra, *EXTRAS[extra].modules)


def import_extra(extra: str, *modules: str) -> ModuleType:
    """Import some modules of an extra, and return the first.

    Raises:
        MissingExtraError: if one of them cannot be imported.
    """
    try:
        imported = [import_module(module) for module in modules]
    except ImportError as error:
        raise missing_extra(extra, error) from error
    return imported[0]


def missing_extra(extra: str, reason: object) -> MissingExtraError:
    """Error for an extra that is not installed completely, with the install line."""
    return MissingExtraError(
        f"{EXTRAS[extra].work} requires packages of the extra {extra!r} that cannot be imported ({reason}); install it "
        "with: "
        f'pip install "vpr-dhe[{extra}]"'
    )


def import_package(module: str, package: str, work: str) -> ModuleType:
    """Import a module of a package that is in no extra.

    Raises:
        MissingExtraError: if it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{work} requires {package}, which cannot be imported ({error}); install it with: pip install {package}"
        ) from error
