"""The packages of the extra `export`."""

from vpr_dhe.runtime.extras import import_extra


def require_extra() -> None:
    """See that what an export needs can be imported.

    Raises:
        MissingExtraError: if something is not installed.
    """
    import_extra("export", "an export", "onnx", "onnxruntime", "onnxscript")
