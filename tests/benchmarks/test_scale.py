"""Comparison of index types with FAISS alone: results of a size are kept together, type by type."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def measure(kind: str, dimension: int, out: Path) -> dict[str, dict]:
    """Measure one type of 2,000 vectors; returns all types of the result."""
    script = [sys.executable, BENCHMARKS / "scale.py", "--count", "2000", "--dimension", str(dimension)]
    subprocess.run([*script, "--types", kind, "--out", out], check=True, capture_output=True)
    return json.loads((out / "scale_2000.json").read_text())["types"]


@pytest.mark.slow
def test_types_measured_later_join_the_table_of_their_size(tmp_path):
    measure("ivf-sq8", 32, tmp_path)
    types = measure("flat", 32, tmp_path)
    assert list(types) == ["flat", "ivf-sq8"]
    for measured in types.values():
        assert measured["search"]["recall_at_1"] > 0.9
        assert measured["faiss"]["latency"]["agreement"] > 0.9
    rows = (tmp_path / "scale_2000.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["`flat`", "`ivf-sq8`"]
    assert list(measure("flat", 16, tmp_path)) == ["flat"]
