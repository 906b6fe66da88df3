"""What ONNX Runtime is asked for; a GPU is not needed, because the session is not opened."""

from unittest.mock import MagicMock

import onnxruntime
import pytest

from vpr_dhe.models.onnx_session import OnnxSession


@pytest.mark.parametrize(
    ("device", "provider"),
    [
        ("cpu", ("CPUExecutionProvider", {})),
        ("cuda", ("CUDAExecutionProvider", {"use_tf32": "0"})),
        ("cuda:1", ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"})),
    ],
)
def test_products_are_exact_on_every_device_and_on_the_one_asked_for(monkeypatch, device, provider):
    opened = MagicMock()
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider[0]])
    OnnxSession(b"", device)
    assert opened.call_args.kwargs["providers"] == [provider]
