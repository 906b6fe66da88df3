"""Searches restricted to a circle: exactly those of brute force over the images in it, whatever the index type."""

import numpy as np
import pytest
import torch
from made_up_codes import codes_of

from tests.index.adaptation.towns import SPEC, SPEC_WITH_CODES, add, filled_with, town
from vpr_dhe.distributed.shard_actor import ShardServer
from vpr_dhe.distributed.sharding import assign
from vpr_dhe.geography.distance import apart
from vpr_dhe.index.adaptation.fitting import Fit
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.adaptation_update import MapVectors
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.search import SearchResult, merge
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.index.vectors import INDEX_TYPES, approximate
from vpr_dhe.records import GeoPosition, MetricPosition, Near

VECTORS, RECORDS = town(50, 6)
QUERIES = torch.from_numpy(town(50, 1)[0][:20])
CODES = torch.from_numpy(codes_of(QUERIES.numpy()))
REMOVED = [3, 50, 51, 290]
CENTRE = RECORDS[40].position
ADAPTED = pytest.mark.parametrize("adapted", [False, True], ids=["extracted", "adapted"])


@pytest.fixture(scope="module", params=INDEX_TYPES)
def index(request, tmp_path_factory) -> PlaceIndex:
    """An adapted index with removed images, of which the last are in no FAISS file."""
    folder = tmp_path_factory.mktemp(request.param) / "index"
    spec = SPEC_WITH_CODES if INDEX_TYPES[request.param].of_codes else SPEC
    index = filled_with(spec, folder, VECTORS[:280], RECORDS[:280], index_type=request.param)
    with index.writing() as writer:
        vectors, images = MapVectors(writer.snapshot), MapImages.of(RECORDS[:280])
        transform = VectorTransform.centring(VECTORS.mean(axis=0))
        fit = Fit(transform, 0.5, AdaptationReport(280, "positions", 0))
        writer.adapt(fit, vectors, images, lambda _kind, _count: None)
    add(index, VECTORS[280:], RECORDS[280:])
    assert [file.built.count for file in index.manifest.vector_files] == ([] if request.param == "flat" else [280])
    index.remove(REMOVED)
    return index


def brute_force(index: PlaceIndex, near: Near, count: int, *, adapted: bool) -> SearchResult:
    """All similarities, of which those of images elsewhere are left out one by one."""
    flat = Snapshot(index.folder, index.manifest)
    flat.__dict__["parts"] = [flat._exact_part(part, flat._terms_of([part])) for part in flat.segments]
    everything = flat.search(QUERIES, len(flat), adapted=adapted)
    inside = {id for id in index.ids.tolist() if apart(RECORDS[id].position, near.position) <= near.within_m}
    kept = np.isin(everything.ids, sorted(inside))
    rows = everything.ids[kept].reshape(len(QUERIES), -1)[:, :count]
    return SearchResult(rows, everything.similarities[kept].reshape(len(QUERIES), -1)[:, :count])


def searched(snapshot: Snapshot, near: Near, count: int, *, adapted: bool) -> SearchResult:
    return snapshot.search(QUERIES, count, codes=CODES, adapted=adapted, among=snapshot.within(near)[0])


@ADAPTED
@pytest.mark.parametrize("within_m", [30.0, 200.0, 1e5])
def test_the_answer_is_that_of_brute_force_over_the_circle(index, adapted, within_m):
    near = Near(CENTRE, within_m)
    expected = brute_force(index, near, 20, adapted=adapted)
    found = searched(index.snapshot, near, 20, adapted=adapted)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
    assert (found.extracted is not None) == adapted


def test_shards_together_answer_like_the_whole(index):
    near = Near(CENTRE, 200.0)
    shards = [ShardServer(index.folder, shard, None) for shard in assign(index.manifest, 3)]
    found = merge([shard.search(QUERIES.numpy(), 20, near, CODES.numpy()) for shard in shards], 20)
    np.testing.assert_array_equal(found.ids, brute_force(index, near, 20, adapted=True).ids)
    counts = [shard.nearby(near) for shard in shards]
    whole = index.snapshot.within(near)[1]
    assert sum(one.images for one in counts) == whole.images
    assert sum(one.unplaced for one in counts) == whole.unplaced == 0


def test_many_images_are_proposed_by_faiss_from_the_circle_alone(index, monkeypatch):
    monkeypatch.setattr(approximate, "EXACT_ROWS", 0)
    near = Near(CENTRE, 300.0)
    expected = brute_force(index, near, 10, adapted=True)
    found = searched(index.snapshot, near, 10, adapted=True)
    assert found.ids.shape == expected.ids.shape
    common = [len(set(one) & set(other)) for one, other in zip(found.ids.tolist(), expected.ids.tolist(), strict=True)]
    assert np.mean(common) / 10 > 0.95
    inside = index.snapshot.within(near)[0]
    assert np.isin(found.ids, inside).all()


def test_a_circle_without_images_is_empty(index):
    ids, nearby = index.snapshot.within(Near(MetricPosition(-1e6, 0.0), 10.0))
    assert (len(ids), nearby.images, nearby.unplaced) == (0, 0, 0)
    # No distance is known between degrees and local metres.
    assert index.snapshot.within(Near(GeoPosition(0.0, 0.0), 10.0))[1].unplaced == len(index)
    assert searched(index.snapshot, nearby.near, 5, adapted=True).ids.shape == (len(QUERIES), 0)


def test_a_shard_counts_images_near_a_place_if_more_than_its_own_were_removed(tmp_path):
    index = filled_with(SPEC, tmp_path / "index", VECTORS[:100], RECORDS[:100])
    for part in (slice(100, 200), slice(200, 300)):
        add(index, VECTORS[part], RECORDS[part])
    index.remove(range(10, 250))
    shards = [ShardServer(index.folder, shard, None) for shard in assign(index.manifest, 3)]
    near = Near(RECORDS[5].position, 50.0)
    counts = [shard.nearby(near) for shard in shards]
    alone = index.snapshot.within(near)[1]
    assert sum(one.images for one in counts) == alone.images
    assert sum(one.unplaced for one in counts) == alone.unplaced
