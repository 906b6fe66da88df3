"""The packages of the extra `export`."""

from importlib import import_module

from vpr_dhe.models.onnx_session import missing

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_extra() -> None:
    """See that what an export needs can be imported.

    Raises:
        MissingExtraError: if something is not installed.
    """
    try:
        for package in _PACKAGES:
            import_module(package)
    except ImportError as error:
        raise missing(error) from error
