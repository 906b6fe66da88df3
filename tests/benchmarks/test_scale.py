"""Comparison of index types with FAISS alone: results of a size are kept together, type by type."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import scale

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_types_measured_later_join_the_table_of_their_size(tmp_path):
    script = [sys.executable, BENCHMARKS / "scale.py", "--count", "2000", "--dimension", "32", "--out", tmp_path]
    for kind in ("ivf-sq8", "flat"):
        subprocess.run([*script, "--types", kind], check=True, capture_output=True)
    types = json.loads((tmp_path / "scale_2000.json").read_text())["types"]
    assert list(types) == ["flat", "ivf-sq8"]
    for measured in types.values():
        assert measured["search"]["recall_at_1"] > 0.9
        assert measured["faiss"]["latency"]["agreement"] > 0.9
    rows = (tmp_path / "scale_2000.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["`flat`", "`ivf-sq8`"]
    assert scale.earlier_types(tmp_path / "scale_2000.json", 32) == types
    assert not scale.earlier_types(tmp_path / "scale_2000.json", 16), "other vectors"
