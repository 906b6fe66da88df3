"""A Ray cluster of three nodes on this machine, and a map that several segments hold."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.index import writer

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
# A dead node is noticed in two seconds instead of half a minute.
SOON = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """Three nodes with one processor each; the first is the head."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"_system_config": SOON})
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def small_segments(monkeypatch) -> None:
    monkeypatch.setattr(writer, "SEGMENT_IMAGES", 2)
    monkeypatch.setattr(writer, "CODEC_SAMPLE", 2)


@pytest.fixture
def map_folder(tmp_path) -> Path:
    """Thirty images that resemble their neighbours; their widths tell which is which."""
    folder = tmp_path / "map"
    folder.mkdir()
    rng = np.random.default_rng(3)
    wide = np.asarray(
        PIL.Image.fromarray(rng.integers(0, 256, (12, 80, 3), np.uint8)).resize(
            (1600, 120), PIL.Image.Resampling.BICUBIC
        )
    )
    for number in range(30):
        view = wide[:, 40 * number : 40 * number + 100 + number]
        PIL.Image.fromarray(np.ascontiguousarray(view)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def sent_by_value(request, thumbnail_extractor) -> Iterator[None]:
    """Send classes and functions of the test's modules to workers as they are: workers cannot import them."""
    from ray import cloudpickle

    modules = [request.module, sys.modules[type(thumbnail_extractor).__module__]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)
