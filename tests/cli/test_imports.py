"""Modules that a query imports: a robot waits for them at each start, and may not have them installed."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr_dhe.cli import main

# What a query with the default model and verifier needs besides the standard library; the small install of the manual
# (`docs/guides/small-install.md`) holds these, and what they import themselves.
DIRECT = {"PIL", "cv2", "faiss", "jaxtyping", "numpy", "onnxruntime", "safetensors", "torch", "tqdm", "typer", "xxhash"}
# Installed with the package, slow to import, and needed by other commands, models or verifiers alone.
OTHERS = {"kornia", "pandas", "poselib", "ray", "scipy", "sklearn", "timm", "torchvision"}
PARTS_OF_TORCH = {"torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.cpp_extension"}
OWN = (
    "vpr_dhe.features.aggregators",
    "vpr_dhe.features.backbones",
    "vpr_dhe.features.neural_extractor",
    "vpr_dhe.models.onnx_conversion",
    "vpr_dhe.training",
    "vpr_dhe.verification.estimators.cross_modal",
    "vpr_dhe.verification.estimators.dhe",
    "vpr_dhe.verification.estimators.matchers",
    "vpr_dhe.verification.estimators.ransac_flow",
)
PROGRAM = """
import json, sys
from vpr_dhe.cli import main
assert "torch" not in sys.modules
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(3):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC))
    return folder


def modules_of(*arguments: object) -> set[str]:
    """Names of the modules that a process has after a command."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_query_imports_the_small_install_alone(photos, tmp_path):
    index = tmp_path / "index"
    modules_of("index", photos, "--out", index)
    found = modules_of("query", index, photos / "0.png", "--out", tmp_path / "answer.json")
    assert found >= DIRECT
    assert not found & OTHERS
    assert not found & PARTS_OF_TORCH
    assert [name for name in found if name.startswith(OWN)] == []


def test_a_package_that_a_small_install_lacks_is_named(monkeypatch, capsys, photos, tmp_path):
    positions = tmp_path / "positions.csv"
    positions.write_text("image,x,y\n0.png,0,0\n")
    monkeypatch.setitem(sys.modules, "pandas", None)
    arguments = ("vpr-dhe", "index", photos, "--out", tmp_path / "index", "--positions", positions)
    monkeypatch.setattr(sys, "argv", [*map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "error: the package pandas is not installed" in capsys.readouterr().err
