"""The packages of the extra `export`."""

from vpr_dhe.runtime.extras import import_extra


def require_extra() -> None:
    """Check that the packages are installed.

    Raises:
        MissingExtraError: if one is not.
    """
    import_extra("export", "an export", "onnx", "onnxruntime", "onnxscript")
