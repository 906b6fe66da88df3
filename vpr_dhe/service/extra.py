"""The packages of the extra `serve`."""

from importlib import import_module

from vpr_dhe.errors import MissingExtraError

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def require_extra() -> None:
    """See that what a service needs can be imported.

    Raises:
        MissingExtraError: if something is not installed.
    """
    try:
        for package in _PACKAGES:
            import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"a service needs packages that cannot be imported here ({error}); install them with: "
            'pip install "vpr-dhe[serve]"'
        ) from error
