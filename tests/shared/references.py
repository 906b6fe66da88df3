"""Made-up checkpoints of published models, beside references of what the authors' own code makes of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def made_up_checkpoint(source: Path, folder: Path) -> Path:
    """Write the checkpoint of a folder of references, in the layout that was published; without references, skip."""
    if not source.is_dir():
        pytest.skip(f"no references at {source}")
    make = [sys.executable, source.parent / "make_checkpoint.py", source / "shapes.json", folder, "--seed", "1"]
    subprocess.run(make, check=True, capture_output=True)
    return folder / json.loads((source / "shapes.json").read_text())["container"]["file"]
