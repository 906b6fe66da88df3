"""Provenance of a result: version, machine and seed."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from vpr_dhe.verification.estimators.robust import SEED

_PACKAGES = ("numpy", "torch", "onnxruntime", "faiss-cpu", "opencv-python-headless", "poselib")


@dataclass(frozen=True)
class Machine:
    """Machine of a measurement; `device` runs the networks, `packages` holds versions that can change results."""

    cpu: str
    cores: int
    memory_gb: float
    device: str
    system: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Provenance:
    """Version of this package, seed of the robust estimators, and machine, to reproduce a result."""

    version: str
    seed: int
    machine: Machine


def this_machine(device: str = "cpu") -> Machine:
    """Collect the facts of this machine."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        device=name,
        system=platform.platform(),
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := _version(name))},
    )


def provenance(device: str = "cpu") -> Provenance:
    """Collect version, seed and machine of this process."""
    return Provenance(version("vpr-dhe"), SEED, this_machine(device))


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
