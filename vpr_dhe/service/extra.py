"""Check of the optional packages of the extra `serve`."""

from vpr_dhe.runtime.extras import import_extra


def require_extra() -> None:
    """Require the packages of a service.

    Raises:
        MissingExtraError: if one is not installed.
    """
    import_extra("serve", "a service", "fastapi", "uvicorn", "prometheus_client", "python_multipart")
