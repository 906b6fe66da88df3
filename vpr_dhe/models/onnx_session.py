"""Inference of ONNX files by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from vpr_dhe.errors import ModelError

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32, the default of ONNX Runtime on GPUs, rounds the factors of products to 10 bits of mantissa.
_PROVIDER_OPTIONS: Mapping[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
_ERRORS_ONLY = 3
_NO_WEIGHTS: Mapping[str, Tensor] = MappingProxyType({})


class OnnxSession:
    """Network in ONNX Runtime, with the number of threads that torch uses in the calling thread.

    Threads may call it concurrently. ONNX Runtime fixes the number of threads of a session, so there is one session for
    each number of threads in use; they share `weights`, but not weights in the file.

    Args:
        network: path of an ONNX file, or its content.
        device: a torch device.
        weights: weights by name, in single precision, that the file does not contain.

    Raises:
        ModelError: if the file or the device is not supported, or the weights are not those of the network.
    """

    def __init__(self, network: Path | bytes, device: str = "cpu", weights: Mapping[str, Tensor] = _NO_WEIGHTS) -> None:
        self.device = torch.device(device).type
        self._arguments = network, device, dict(weights)
        self._provider = _available_provider(device)
        self._values = _as_values(weights)
        self._sessions: dict[int, Any] = {}
        self._making = Lock()
        self._inputs = [one.name for one in self._session().get_inputs()]

    def __reduce__(self) -> tuple[type["OnnxSession"], tuple[Path | bytes, str, dict[str, Tensor]]]:
        """Pickle the arguments of the constructor; unpickling opens the network again."""
        return OnnxSession, self._arguments

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the network; inputs and outputs are in the order of the file, the outputs on the CPU."""
        arrays = {name: value.detach().cpu().numpy() for name, value in zip(self._inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in self._session().run(None, arrays))

    def _session(self) -> Any:
        """Return the session for the calling thread's number of threads."""
        threads = torch.get_num_threads() if self.device == "cpu" else 1
        with self._making:
            if threads not in self._sessions:
                self._sessions[threads] = self._make(threads)
            return self._sessions[threads]

    def _make(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        # Spinning threads would take cores from image decoding; small work items keep a thread that lost its core from
        # delaying the others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.dynamic_block_base", "4")
        network, device, _ = self._arguments
        try:
            if self._values:
                options.add_external_initializers(list(self._values), list(self._values.values()))
            number = torch.device(device).index
            chosen = {} if number is None else {"device_id": str(number)}
            provider = (self._provider, {**_PROVIDER_OPTIONS[self.device], **chosen})
            return onnxruntime.InferenceSession(network, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has many classes of errors, without a common base
            reason = " ".join(str(error).split())
            named = network if isinstance(network, Path) else "a converted network"
            raise ModelError(
                f"ONNX Runtime cannot run {named} on {device} ({reason}); export the model again"
            ) from error


def _available_provider(device: str) -> str:
    import onnxruntime

    provider, available = _PROVIDERS.get(torch.device(device).type), onnxruntime.get_available_providers()
    if provider is None or provider not in available:
        raise ModelError(
            f"ONNX Runtime cannot run on {device} here (it has {', '.join(available)}); use --device cpu, or "
            "install onnxruntime-gpu instead"
        )
    return provider


def _as_values(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Wrap tensors as values of ONNX Runtime without copying."""
    import onnxruntime

    arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in weights.items()}
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
