"""The packages of optional extras, imported where they are needed."""

from importlib import import_module
from types import ModuleType

from vpr_dhe.errors import MissingExtraError


def import_extra(extra: str, work: str, *packages: str) -> ModuleType:
    """Import the packages of an extra, and return the first.

    Args:
        extra: its name in pyproject.toml.
        work: what needs them, for the message: "training".
        packages: or modules of them, all of which must be there.

    Raises:
        MissingExtraError: if one of them cannot be imported.
    """
    try:
        modules = [import_module(package) for package in packages]
    except ImportError as error:
        raise MissingExtraError(
            f'what {work} needs cannot be imported here ({error}); install it with: pip install "vpr-dhe[{extra}]"'
        ) from error
    return modules[0]
