"""Tables of sizes, from a laptop to 100 million images: computed from the measured figures as they stand."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import sizing


@pytest.mark.parametrize("name", ["sizing_disk", "sizing_cost"])
def test_tables_are_those_of_the_measured_figures(name):
    computed = {"sizing_disk": sizing.disk_table, "sizing_cost": sizing.cost_table}[name]()
    assert (sizing.RESULTS / f"{name}.md").read_text() == f"{computed}\n", "run python benchmarks/sizing.py"


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-sq8", "rabitq"])
def test_formulas_of_faiss_files_agree_with_measured_ones(kind):
    measured = sizing.measured_types()[kind].bytes_per_vector
    assert sizing.file_bytes(kind, 1_000_000, 384) == pytest.approx(measured, rel=0.05)


def test_sizes_of_a_million_images_are_those_of_their_records():
    found = sizing.Sizing.of(1_000_000)
    assert (found.kind, found.max_shards) == ("hnsw", 1)
    assert found.vectors_gb == pytest.approx(3.072)
    assert found.hours[0] == pytest.approx(32 * found.hours[1])
    assert sizing.map_bytes()["float16"] == 400 * 64 * 2
    assert 96 < sizing.metadata_bytes() < 400


def test_a_hundred_million_are_rabitq_in_shards():
    found, tenth = sizing.Sizing.of(100_000_000), sizing.Sizing.of(10_000_000)
    assert (found.kind, found.max_shards) == ("rabitq", 96)
    assert 1 < found.shards < found.max_shards
    assert found.search_ms == pytest.approx(9.6 * tenth.search_ms)
