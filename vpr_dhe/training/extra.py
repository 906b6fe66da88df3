"""The packages of the extra `train`."""

from types import ModuleType

from vpr_dhe.errors import MissingExtraError


def import_accelerate() -> ModuleType:
    """Import accelerate, and see that what logs are written with is there.

    Raises:
        MissingExtraError: if one of them is not installed.
    """
    try:
        import accelerate
        import torch.utils.tensorboard  # noqa: F401 (raises where tensorboard is missing)
    except ImportError as error:
        raise missing(error) from error
    return accelerate


def missing(error: ImportError) -> MissingExtraError:
    """An error that says how to install what training needs."""
    return MissingExtraError(
        f"training needs packages that cannot be imported here ({error}); install them with: "
        'pip install "vpr-dhe[train]"'
    )
