"""A network in an ONNX file, run by ONNX Runtime."""

from pathlib import Path

import torch
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.runtime.extras import import_extra

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxSession:
    """Runs one network with as many threads as torch uses when it is made.

    Args:
        path: an ONNX file.
        device: a torch device.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
        ModelError: if the file is none that it can run, or it cannot run on the device.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        onnxruntime = import_extra("export", "onnxruntime")
        provider, available = _PROVIDERS.get(torch.device(device).type), onnxruntime.get_available_providers()
        if provider not in available:
            raise ModelError(
                f"ONNX Runtime cannot run on {device} here (it has {', '.join(available)}); use --device cpu, or "
                "install onnxruntime-gpu in its place"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises a class of its own for each way to be unusable
            reason = " ".join(str(error).split())
            raise ModelError(f"ONNX Runtime cannot run {path} ({reason}); export the model again") from error
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._made_of = path, device

    def __reduce__(self) -> tuple[type["OnnxSession"], tuple[Path, str]]:
        """Travel to another process as the file that it is made of."""
        return OnnxSession, self._made_of

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the network; inputs and outputs are in the order of the file, the outputs on the CPU."""
        fed = {name: value.detach().cpu().numpy() for name, value in zip(self._inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in self._session.run(None, fed))
