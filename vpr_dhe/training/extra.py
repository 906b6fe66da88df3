"""The packages of the extra `train`."""

from types import ModuleType

from vpr_dhe.errors import MissingExtraError
from vpr_dhe.extras import import_extra, missing_extra

_EXTRA, _WORK = "train", "training"


def import_accelerate() -> ModuleType:
    """Import accelerate, and see that what logs are written with is there.

    Raises:
        MissingExtraError: if one of them is not installed.
    """
    return import_extra(_EXTRA, _WORK, "accelerate", "torch.utils.tensorboard")


def missing(error: ImportError) -> MissingExtraError:
    """An error that says how to install what training needs."""
    return missing_extra(_EXTRA, _WORK, error)
