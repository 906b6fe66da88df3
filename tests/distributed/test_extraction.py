"""Extraction by the workers of a simulated cluster, some of which die."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.distributed.cluster import connected
from vpr_dhe.distributed.extraction import MAX_ATTEMPTS, Workers, add_with_ray
from vpr_dhe.errors import BadInputError, ImageError, WorkerLostError
from vpr_dhe.features.base import Extractor
from vpr_dhe.index.checking import check
from vpr_dhe.index.place_index import PlaceIndex

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sent_by_value", "small_segments")]


class Observed(Extractor):
    """Leaves a file NODE-PROCESS-WIDTH for each image before it is described, and then does as it is told."""

    def __init__(self, inner: Extractor, folder: Path, then: Callable[[int], object]) -> None:
        self.spec, self._inner, self._folder, self._then = inner.spec, inner, folder, then

    def extract(self, images):
        import ray

        for image in images:
            node = ray.get_runtime_context().get_node_id()
            (self._folder / f"{node}-{os.getpid()}-{image.shape[1]}").touch()
            self._then(image.shape[1])
        return self._inner.extract(images)


def wait_for(path: Path, _: int) -> None:
    while not path.exists():
        time.sleep(0.05)


def end_the_process_at(width: int, seen: int) -> None:
    if seen == width:
        os._exit(1)


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def wait_until_idle(processors: float) -> None:
    """Wait until no worker is left."""
    import ray

    wait_until(lambda: ray.available_resources().get("CPU") == processors, 20.0)


@pytest.fixture
def marks(tmp_path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def observed(inner: Extractor, marks: Path, then: Callable[[int], object] = int) -> Workers:
    return Workers(partial(Observed, inner, marks, then))


def grown(folder: Path, map_folder: Path, extractor: Extractor) -> PlaceIndex:
    """An index that has something to replace, something to update and something to leave alone."""
    index = PlaceIndex.create(folder, extractor.spec, map_folder, codec="float16")
    index.add(read_split(map_folder).records[:5], extractor)
    index.remove([2])
    return index


def content(index: PlaceIndex) -> tuple:
    state = PlaceIndex.open(index.folder)
    assert check(index.folder).damaged == ()
    ids = state.ids.tolist()
    return (
        {id: (state.image(id), state.frame(id), state.snapshot.stamp(id)) for id in ids},
        state.descriptors(ids).numpy().tobytes(),
        state.local_maps(ids).numpy().tobytes(),
        set(state.manifest.skipped),
        state.manifest.next_id,
        state.manifest.removed_count,
    )


def processes_by_node(marks: Path) -> dict[str, set[int]]:
    found = defaultdict(set)
    for mark in marks.iterdir():
        node, process, _ = mark.name.split("-")
        found[node].add(int(process))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def kill_a_node_at_work(cluster, marks: Path, gate: Path, killed: list[str]) -> None:
    """Wait until every node is at work and one that is not the head can be killed; the others go on when it is dead."""
    wait_until(lambda: len(processes_by_node(marks)) == 3, 120.0)
    victim = cluster.list_all_nodes()[-1]
    assert not victim.head
    processes = processes_by_node(marks)[victim.node_id]
    cluster.remove_node(victim, allow_graceful=False)
    wait_until(lambda: not any(is_running(process) for process in processes))
    killed.append(victim.node_id)
    gate.touch()


def test_a_node_killed_at_work_changes_nothing(cluster, map_folder, tmp_path, marks, thumbnail_extractor, capfd):
    alone, together = (grown(tmp_path / name, map_folder, thumbnail_extractor) for name in ("alone", "together"))
    (map_folder / "01.png").write_bytes((map_folder / "20.png").read_bytes())
    for name in ("11.png", "25.png"):
        (map_folder / name).write_bytes(b"broken")
    records = read_split(map_folder).records
    expected = alone.add(records, thumbnail_extractor)
    killed: list[str] = []
    gate, seen = tmp_path / "gate", []
    killer = threading.Thread(target=kill_a_node_at_work, args=(cluster, marks, gate, killed), daemon=True)
    killer.start()
    workers = observed(thumbnail_extractor, marks, partial(wait_for, gate))
    report = add_with_ray(
        together, records, thumbnail_extractor, workers, address=cluster.address, batch_size=1, progress=seen.append
    )
    killer.join()
    assert content(together) == content(alone)
    assert report == expected
    assert sum(seen) == len(records)
    # What the killed node had begun was done again by another.
    begun = {mark.name.split("-")[2] for mark in marks.glob(f"{killed[0]}-*")}
    others = {mark.name.split("-")[2] for mark in marks.iterdir() if not mark.name.startswith(killed[0])}
    assert begun
    assert begun <= others
    assert list((together.folder / "segments").glob("*extraction*")) == []
    assert capfd.readouterr().out == ""
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def test_what_cannot_be_extracted_is_told_and_all_else_is_kept(
    cluster, map_folder, tmp_path, marks, thumbnail_extractor
):
    records = read_split(map_folder).records[:10]
    with connected(cluster.address):
        index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, map_folder, codec="float16")
        deadly = observed(thumbnail_extractor, marks, partial(end_the_process_at, 103))
        with pytest.raises(WorkerLostError, match=r"02\.png to 03\.png|03\.png to 04\.png"):
            add_with_ray(index, records, thumbnail_extractor, deadly)
        assert len(list(marks.glob("*-103"))) == MAX_ATTEMPTS
        assert len(index) == 8
        with pytest.raises(BadInputError, match="GPUs"):
            add_with_ray(index, records, thumbnail_extractor, Workers(lambda: thumbnail_extractor, gpus_each=1.0))
        (map_folder / records[3].path).write_bytes(b"broken")
        with pytest.raises(ImageError, match=r"0[23]\.png"):
            add_with_ray(index, records, thumbnail_extractor, observed(thumbnail_extractor, marks), strict=True)
        with pytest.raises(KeyboardInterrupt):
            add_with_ray(index, records, thumbnail_extractor, observed(thumbnail_extractor, marks), progress=interrupt)
        assert len(PlaceIndex.open(index.folder)) >= 8
        wait_until_idle(3.0)
        report = add_with_ray(index, records, thumbnail_extractor, observed(thumbnail_extractor, marks))
    assert (len(report.skipped), len(index), report.unchanged) == (1, 9, 8)
    np.testing.assert_array_equal(index.ids, PlaceIndex.open(index.folder).ids)
