"""The benchmark of Ray: the index that it makes up, and its processor time of a tree of processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import scale_out
from measuring import processor_seconds

from vpr_dhe.index import vector_files
from vpr_dhe.index.checking import check
from vpr_dhe.index.place_index import PlaceIndex

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_processor_time_counts_processes_that_have_ended():
    before = processor_seconds()
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert processor_seconds() - before >= 0.29


@pytest.mark.slow
def test_a_made_up_index_is_sound_and_has_a_file_per_quarter(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "COVERED_IMAGES", vector_files.COVERED_IMAGES)
    scale_out.made_up_index(tmp_path / "index", 640, 16, "ivf-sq8")
    index = PlaceIndex.open(tmp_path / "index")
    assert check(index.folder).damaged == ()
    assert [info.count for info in index.manifest.segments] == [40] * 16
    assert [len(file.segments) for file in index.manifest.vector_files] == [4] * 4
    expected = np.concatenate(list(scale_out.Places(16).database(640)))
    np.testing.assert_array_equal(index.descriptors(index.ids).numpy(), expected)


@pytest.mark.slow
def test_shards_rank_as_one_process(tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, BENCHMARKS / "scale_out.py", "search", "--count", "2000", "--dimension", "32"]
    command += ["--types", "flat", "ivf-sq8", "--queries", "5", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads((tmp_path / "scale_out_search.json").read_text())["rows"]
    assert [(row["index_type"], row["shards"], row["same_ranking"]) for row in rows] == [
        (kind, shards, True) for kind in ("flat", "ivf-sq8") for shards in (1, 4)
    ]
