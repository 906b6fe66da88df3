"""Imports of the optional packages of the extra `train`."""

from types import ModuleType

from vpr_dhe.runtime.extras import import_extra


def import_packages(*packages: str) -> ModuleType:
    """Import packages that training needs, and return the first.

    Raises:
        MissingExtraError: if one is not installed.
    """
    return import_extra("train", "training", *packages)


def import_accelerate() -> ModuleType:
    """Import accelerate, and check that the packages for logging are installed.

    Raises:
        MissingExtraError: if one is not installed.
    """
    return import_packages("accelerate", "torch.utils.tensorboard")
