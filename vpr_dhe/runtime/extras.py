"""Import of packages of optional extras."""

from importlib import import_module
from types import ModuleType

from vpr_dhe.errors import MissingExtraError


def import_extra(extra: str, work: str, *packages: str) -> ModuleType:
    """Import the packages of an extra, and return the first.

    Args:
        extra: name of the extra in pyproject.toml.
        work: what needs the packages, for the message, such as "training".
        packages: packages or modules, all of which are required.

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
