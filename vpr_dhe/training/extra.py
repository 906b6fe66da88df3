"""The packages of the extra `train`."""

from types import ModuleType

from vpr_dhe.runtime.extras import import_extra


def import_packages(*packages: str) -> ModuleType:
    """Import packages that training needs, and return the first.

    Raises:
        MissingExtraError: if one of them is not installed.
    """
    return import_extra("train", "training", *packages)


def import_accelerate() -> ModuleType:
    """Import accelerate, and see that what logs are written with is there.

    Raises:
        MissingExtraError: if one of them is not installed.
    """
    return import_packages("accelerate", "torch.utils.tensorboard")
