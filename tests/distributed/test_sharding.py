"""Every segment is in one shard, shards are of about one size, and no Ray is needed to say so."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.distributed import cluster
from vpr_dhe.distributed.sharded_index import ShardedIndex
from vpr_dhe.distributed.sharding import Directory, assign
from vpr_dhe.errors import BadInputError, MissingExtraError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.files import FileInfo
from vpr_dhe.index.manifest import CoveringFile, Manifest, Settings
from vpr_dhe.index.segments import SegmentInfo
from vpr_dhe.index.vectors import VectorFileInfo
from vpr_dhe.records import Grid, Size

SPEC = ExtractorSpec("m", "f", 8, 4, Grid(2, 2), Size(8, 8), True, 3.0)


@st.composite
def manifests(draw) -> Manifest:
    counts = draw(st.lists(st.integers(1, 50), max_size=20))
    gaps = draw(st.lists(st.integers(0, 5), min_size=len(counts), max_size=len(counts)))
    segments, first_id = [], 0
    for number, (count, gap) in enumerate(zip(counts, gaps, strict=True)):
        segments.append(SegmentInfo(f"s{number}", count, first_id + gap, ()))
        first_id += gap + count
    files, rest = [], [fact.name for fact in segments]
    while rest and draw(st.booleans()):
        size = draw(st.integers(1, len(rest)))
        built = VectorFileInfo("hnsw", 1, {}, 1.0, 1.0, 1)
        files.append(CoveringFile(FileInfo(f"v{len(files)}", 1, ""), tuple(rest[:size]), built))
        rest = rest[size:]
    return Manifest(SPEC, "/images", Settings(), None, first_id, tuple(segments), None, tuple(files))


@given(manifests(), st.integers(1, 8))
def test_each_segment_and_each_faiss_file_is_in_one_shard(manifest, count):
    shards = assign(manifest, count)
    assert len(shards) <= count
    assert all(shard.manifest.segments for shard in shards)
    assert len({shard.name for shard in shards}) == len(shards)
    held = [fact for shard in shards for fact in shard.manifest.segments]
    assert sorted(held, key=lambda fact: fact.first_id) == list(manifest.segments)
    files = [file for shard in shards for file in shard.manifest.vector_files]
    assert sorted(files, key=lambda file: file.file.name) == sorted(manifest.vector_files, key=lambda f: f.file.name)
    for shard in shards:
        first_ids = [fact.first_id for fact in shard.manifest.segments]
        assert first_ids == sorted(first_ids)


@given(manifests(), st.integers(1, 8))
def test_no_shard_holds_more_than_the_mean_and_the_largest_group(manifest, count):
    shards = assign(manifest, count)
    sizes = {fact.name: fact.count for fact in manifest.segments}
    covered = [sum(sizes[name] for name in file.segments) for file in manifest.vector_files]
    mean = sum(sizes.values()) / count
    for shard in shards:
        load = sum(fact.count for fact in shard.manifest.segments)
        assert load <= mean + max([*covered, *sizes.values()])


@given(manifests(), st.integers(1, 8))
def test_the_directory_knows_where_each_image_is(manifest, count):
    shards = assign(manifest, count)
    ids = [id for fact in manifest.segments for id in range(fact.first_id, fact.first_id + fact.count)]
    groups = Directory(shards).by_shard(ids)
    assert sorted(id for group in groups.values() for id in group) == ids
    for shard in shards:
        own = [id for fact in shard.manifest.segments for id in range(fact.first_id, fact.first_id + fact.count)]
        assert groups[shard.name] == own


@pytest.mark.slow
def test_what_takes_long_is_imported_by_nothing_that_can_do_without_it():
    """A query waits for all that is imported, and reads neither tables nor shards."""
    modules = ["cli", "localization.localizer", "index.place_index"]
    modules += ["distributed.extraction", "distributed.sharded_index"]
    imports = ", ".join(f"vpr_dhe.{name}" for name in modules)
    found = "' '.join({'ray', 'pandas', 'timm', 'sklearn'} & sys.modules.keys())"
    code = f"import sys, {imports}; sys.exit({found} or 0)"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_missing_extra_is_explained(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "vpr-dhe\[distributed\]"'), cluster.connected("auto"):
        pass
    with pytest.raises(MissingExtraError, match="with Ray requires packages of the extra 'distributed'"):
        ShardedIndex.open(tmp_path, None, shards=2)


@pytest.mark.parametrize("address", ["nonsense", "ray://localhost:10001", "localhost:99999", "127.0.0.1:9"])
def test_a_wrong_address_is_told_at_once(address):
    pytest.importorskip("ray")
    with pytest.raises(BadInputError, match=r"address|nothing answers"), cluster.connected(address):
        pass


def test_where_no_cluster_runs_auto_starts_one_here(monkeypatch):
    ray = pytest.importorskip("ray")
    asked = []

    def init(address, **_):
        asked.append(address)
        if address == "auto":
            raise ConnectionError("no cluster")

    monkeypatch.setattr(ray, "init", init)
    with cluster.connected("auto"):
        assert asked == ["auto", "local"]


def test_a_cluster_that_refuses_is_told_with_what_can_be_done(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "_require_reachable", lambda _: None)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("it hung up")))
    with pytest.raises(BadInputError, match=r"it hung up.*RAY_AUTH_MODE=token"), cluster.connected("10.0.0.1:6379"):
        pass
