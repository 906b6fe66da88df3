"""Inference of ONNX files by ONNX Runtime."""

from pathlib import Path

import torch
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.runtime.extras import import_extra

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxSession:
    """Network in ONNX Runtime, with as many threads as torch has when it is constructed.

    Args:
        path: an ONNX file.
        device: a torch device.

    Raises:
        MissingExtraError: if ONNX Runtime is not installed.
        ModelError: if the file or the device is not supported.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        onnxruntime = import_extra("export", "onnxruntime")
        provider, available = _PROVIDERS.get(torch.device(device).type), onnxruntime.get_available_providers()
        if provider not in available:
            raise ModelError(
                f"ONNX Runtime cannot run on {device} here (it has {', '.join(available)}); use --device cpu, or "
                "install onnxruntime-gpu instead"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has many classes of errors, without a common base
            reason = " ".join(str(error).split())
            raise ModelError(f"ONNX Runtime cannot run {path} ({reason}); export the model again") from error
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._arguments = path, device

    def __reduce__(self) -> tuple[type["OnnxSession"], tuple[Path, str]]:
        """Pickle the arguments of the constructor, so that another process opens the file again."""
        return OnnxSession, self._arguments

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the network; inputs and outputs are in the order of the file, the outputs on the CPU."""
        arrays = {name: value.detach().cpu().numpy() for name, value in zip(self._inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in self._session.run(None, arrays))
