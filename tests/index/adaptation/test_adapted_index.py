"""An adapted index: what it answers, and that growing, shrinking and failing leave it whole."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.index.adaptation.towns import add, filled, town
from vpr_dhe.distributed.shard_actor import ShardServer
from vpr_dhe.distributed.sharding import assign
from vpr_dhe.errors import BadInputError
from vpr_dhe.index import writer as writer_module
from vpr_dhe.index.adaptation.adapted_search import image_terms
from vpr_dhe.index.adaptation.hubs import Reference, hub_means
from vpr_dhe.index.adaptation.map_images import MapImages, mask_of
from vpr_dhe.index.checking import check, repair
from vpr_dhe.index.map_adaptation import is_outgrown
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.search import merge

VECTORS, RECORDS = town(100, 6)
QUERIES = torch.from_numpy(town(100, 1)[0])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Path:
    """Folder of an adapted index, made once."""
    index = filled(tmp_path_factory.mktemp("adapted") / "index", VECTORS, RECORDS)
    index.adapt()
    return index.folder


@pytest.fixture
def index(adapted, tmp_path) -> PlaceIndex:
    return PlaceIndex.open(shutil.copytree(adapted, tmp_path / "index"))


def answers(index: PlaceIndex, *, adapted: bool = True) -> list:
    found = index.search(QUERIES, 20, adapted=adapted)
    return [found.ids.tolist(), found.similarities.tolist()]


def by_formula(index: PlaceIndex, vectors: np.ndarray) -> np.ndarray:
    """Similarities of adapted vectors, computed from scratch over all images."""
    parameters = index.snapshot.adaptation.parameters
    transformed = parameters.transform.apply(vectors)
    images = MapImages.of(RECORDS)
    means = hub_means(transformed, transformed, mask_of(images.near(np.arange(len(images))), len(images)))
    cosines = parameters.transform.apply(QUERIES.numpy()) @ transformed.T
    return cosines - parameters.hub_weight * (means - means.mean())


def test_it_answers_by_the_transformed_vectors_without_hubs(index):
    assert index.manifest.adaptation.report.steps
    expected = by_formula(index, VECTORS)
    found = index.search(QUERIES, 20)
    np.testing.assert_allclose(found.similarities, -np.sort(-expected, axis=1)[:, :20], atol=2e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, found.ids, axis=1), found.similarities, atol=2e-5)
    np.testing.assert_allclose(
        found.extracted, np.take_along_axis(QUERIES.numpy() @ VECTORS.T, found.ids, axis=1), atol=1e-5
    )


def test_extracted_vectors_can_still_be_searched(index, tmp_path):
    plain = filled(tmp_path / "plain", VECTORS, RECORDS)
    assert answers(index, adapted=False) == answers(plain)
    assert index.search(QUERIES, 5, adapted=False).extracted is None
    index.unadapt()
    assert answers(index) == answers(plain)
    assert index.manifest.adaptation is None
    torch.testing.assert_close(index.descriptors([5]), torch.from_numpy(VECTORS[5:6]), rtol=0, atol=1e-7)


def test_a_reopened_index_answers_the_same(index):
    assert answers(PlaceIndex.open(index.folder)) == answers(index)


def test_an_index_that_nothing_helps_is_searched_as_extracted(tmp_path):
    vectors, records = town(100, 6, nuisance=0.0)
    index = filled(tmp_path / "index", vectors, records)
    before = answers(index)
    report = index.adapt()
    assert report.steps == ()
    assert report.trials
    assert answers(index) == before
    assert check(index.folder).adaptation == report


def test_batches_and_other_queries_change_nothing(index):
    together = index.search(QUERIES, 20)
    for number in (0, 7):
        alone = index.search(QUERIES[number : number + 1], 20)
        np.testing.assert_array_equal(alone.ids[0], together.ids[number])
        np.testing.assert_array_equal(alone.similarities[0], together.similarities[number])


def test_added_images_pass_through_the_stored_transform(index):
    before = answers(index)
    vectors, records = town(3, 2, seed=9)
    add(index, vectors, records)
    again = PlaceIndex.open(index.folder)
    found = again.search(torch.from_numpy(vectors), 1)
    assert found.ids[:, 0].tolist() == list(range(600, 606))
    parameters = again.snapshot.adaptation.parameters
    transformed = parameters.transform.apply(vectors)
    others = parameters.transform.apply(VECTORS)
    images = MapImages.of([*RECORDS, *records])
    near = mask_of(images.take(np.arange(600)).near_points(images.points_m[600:]), 600)
    means = hub_means(transformed, others, near)
    expected = np.einsum("rd,rd->r", transformed, transformed) - parameters.hub_weight * (means - parameters.mean_hub)
    np.testing.assert_allclose(found.similarities[:, 0], expected, atol=2e-5)
    again.remove(range(600, 606))
    assert answers(again) == before


def test_removing_merging_and_compacting_leave_the_answers(index):
    for number in range(20):
        add(index, *town(1, 1, seed=100 + number))
    gone = index.search(QUERIES, 1).ids[:50, 0]
    index.remove(np.unique(gone).tolist())
    expected = answers(index)
    assert len(index.manifest.adaptation.terms) > 1
    index.compact()
    assert answers(index) == expected
    assert len(index.manifest.adaptation.terms) == 1
    assert answers(PlaceIndex.open(index.folder)) == expected


@pytest.mark.parametrize("kind", ["hnsw", pytest.param("rabitq", marks=pytest.mark.slow)])
def test_files_over_adapted_vectors_find_the_nearest(kind, tmp_path):
    index = filled(tmp_path / "index", VECTORS, RECORDS, index_type=kind)
    index.adapt()
    (file,) = index.manifest.vector_files
    assert file.adaptation == index.manifest.adaptation_name
    add(index, *town(5, 3, seed=5))
    index.remove(list(range(40)))
    expected = by_formula(index, VECTORS)[:, 40:]
    found = index.search(QUERIES, 50)
    nearest = -np.sort(-expected, axis=1)[:, 49:50] - 1e-5
    kept = (found.similarities >= nearest).mean()
    assert kept >= 0.95


@pytest.mark.slow
def test_files_of_another_adaptation_are_not_searched(tmp_path):
    index = filled(tmp_path / "index", VECTORS, RECORDS, index_type="ivf-flat")
    index.adapt()
    index.unadapt()
    assert [file.adaptation for file in index.manifest.vector_files] == [None]
    plain = filled(tmp_path / "plain", VECTORS, RECORDS)
    pairs = zip(answers(index)[0], answers(plain)[0], strict=True)
    assert np.mean([len(np.intersect1d(*pair)) for pair in pairs]) > 0.95 * 20


def test_a_crash_leaves_the_index_as_it_was(index, monkeypatch):
    before, names = answers(index), index.manifest.adaptation_name

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer_module, "publish", crash)
    with pytest.raises(KeyboardInterrupt):
        index.adapt()
    monkeypatch.undo()
    again = PlaceIndex.open(index.folder)
    assert again.manifest.adaptation_name == names
    assert answers(again) == before
    add(again, *town(1, 1, seed=3))
    kept = {file.name for file in again.manifest.state}
    assert {path.name for path in (index.folder / "state").iterdir()} == kept


def test_a_reader_keeps_its_state_while_the_index_is_adapted_again(index):
    reader = PlaceIndex.open(index.folder)
    before = answers(reader)
    index.unadapt()
    assert answers(reader) == before
    assert reader.refresh()
    assert reader.snapshot.adaptation is None


def test_damage_to_the_adaptation_is_found_and_dropped(index):
    (terms,) = index.manifest.adaptation.terms
    path = index.folder / "state" / terms.name
    path.write_bytes(b"\0" * terms.bytes)
    assert check(index.folder).damaged == (f"state/{terms.name}",)
    assert repair(index.folder) == 0
    repaired = PlaceIndex.open(index.folder)
    assert repaired.manifest.adaptation is None
    assert len(repaired) == 600


def test_an_empty_index_has_nothing_to_adapt_to(tmp_path):
    index = filled(tmp_path / "index", VECTORS[:1], RECORDS[:1])
    index.remove([0])
    with pytest.raises(BadInputError, match="holds no images to adapt to"):
        index.adapt()


def test_shards_together_answer_as_the_index(index):
    add(index, *town(5, 3, seed=5))
    index.remove([3, 601])
    shards = assign(index.manifest, 2)
    assert len(shards) == 2
    found = [ShardServer(index.folder, shard, None).search(QUERIES.numpy(), 20) for shard in shards]
    together, alone = merge(found, 20), index.search(QUERIES, 20)
    np.testing.assert_array_equal(together.ids, alone.ids)
    np.testing.assert_array_equal(together.similarities, alone.similarities)
    np.testing.assert_array_equal(together.extracted, alone.extracted)


def test_an_emptied_index_is_compacted(index):
    index.remove(index.ids.tolist())
    index.compact()
    assert (len(index), index.manifest.segments) == (0, ())
    add(index, *town(5, 3, seed=5))
    assert len(PlaceIndex.open(index.folder)) == 15


def test_an_index_with_removed_images_can_be_adapted(tmp_path):
    index = filled(tmp_path / "index", VECTORS, RECORDS)
    gone = [3, 599]
    index.remove(gone)
    index.adapt()
    assert index.manifest.adaptation.report.steps
    before = answers(index)
    assert not {*gone} & set(np.ravel(before[0]).tolist())
    assert answers(PlaceIndex.open(index.folder)) == before
    index.compact()
    assert answers(index) == before


def test_new_images_are_not_preferred_once_all_of_the_reference_are_gone(index):
    images = MapImages.of(RECORDS[:6])
    nothing = Reference(np.empty((0, VECTORS.shape[1]), np.float32), images.take(np.arange(0)))
    means = nothing.hub_means(VECTORS[:6], images)
    parameters = replace(index.snapshot.adaptation.parameters, hub_weight=0.5, mean_hub=0.3)
    assert image_terms(parameters, np.arange(6), VECTORS[:6], means).rows.offsets.tolist() == [0.0] * 6
    assert not is_outgrown(index)
    index.remove(range(301))
    assert is_outgrown(index)
