"""The packages of the extra `serve`."""

from vpr_dhe.runtime.extras import import_extra


def require_extra() -> None:
    """See that what a service needs can be imported.

    Raises:
        MissingExtraError: if something is not installed.
    """
    import_extra("serve", "a service", "fastapi", "uvicorn", "prometheus_client", "python_multipart")
