"""An index served by shards answers as one machine does, or says what is missing."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.distributed.cluster import connected
from vpr_dhe.distributed.sharded_index import ShardedIndex, ShardedQuery
from vpr_dhe.errors import BadInputError, IndexDamagedError, ShardsMissingError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index import compaction
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Image, Localization
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("joined", "small_segments")]


@pytest.fixture(scope="module")
def joined(cluster) -> Iterator[None]:
    with connected(cluster.address):
        yield


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(build_estimator("magsac"), shortlist_size=5)


@pytest.fixture
def thorough_verifier() -> Verifier:
    """Verifies all candidates, so that what it finds of one does not depend on which others there are."""
    return Verifier(build_estimator("magsac"), shortlist_size=None)


@pytest.fixture
def index(map_folder, tmp_path, thumbnail_extractor, monkeypatch) -> PlaceIndex:
    """An index with removed images: some segments under one FAISS file, others under none."""
    monkeypatch.setattr(compaction, "FAN_IN", 99)
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, map_folder, codec="int8")
    records = read_split(map_folder).records
    index.add(records[:16], thumbnail_extractor)
    index.configure(index_type="hnsw")
    index.build_vector_files()
    index.add(records[16:], thumbnail_extractor)
    index.remove([3, 17, 18])
    assert len(index.manifest.segments) == 15
    assert [len(file.segments) for file in index.manifest.vector_files] == [8]
    return index


@pytest.fixture
def queries(map_folder) -> list[Image]:
    """Views that are a little off those of the map."""
    images = [decode_image(map_folder / f"{number:02d}.png") for number in (1, 3, 8, 15, 22, 29)]
    shift = np.array([[1.03, 0.02, -3.0], [0.01, 0.98, 2.0]])
    return [cv2.warpAffine(image, shift, (image.shape[1], image.shape[0])) for image in images]


def assert_same(answer: Localization, expected: Localization) -> None:
    """Every digit of the matches is the same."""
    assert [match.image for match in answer.matches] == [match.image for match in expected.matches]
    for ours, theirs in zip(answer.matches, expected.matches, strict=True):
        assert (ours.rank, ours.similarity, ours.score, ours.inliers, ours.probability) == (
            theirs.rank,
            theirs.similarity,
            theirs.score,
            theirs.inliers,
            theirs.probability,
        )
        np.testing.assert_array_equal(ours.homography, theirs.homography)
        if theirs.verification:
            np.testing.assert_array_equal(ours.verification.query_points, theirs.verification.query_points)


def assert_answers(places: ShardedIndex, alone: Localizer, queries: list[Image]) -> None:
    together = Localizer(
        places, alone.extractor, rerank=alone.rerank, stop_early=alone.stop_early, calibration=alone.calibration
    )
    for query in queries:
        answer = together.localize(query, top_k=20)
        assert_same(answer, alone.localize(query, top_k=20))
        assert answer.missing_shards == ()


def process_of(places: ShardedIndex, shard: int, replica: int = 0) -> int:
    import ray

    actor = places._shards[places.shards[shard]]._actors[replica]
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


def end_for_good(places: ShardedIndex, shard: int, replica: int = 0) -> None:
    import ray

    ray.kill(places._shards[places.shards[shard]]._actors[replica], no_restart=True)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def held_by(places: ShardedIndex, shard: int, index: PlaceIndex) -> set[str]:
    ids = places._directory.by_shard(index.ids.tolist())[places.shards[shard]]
    return {index.image(id).path for id in ids}


def assert_right_but_for(answer: Localization, expected: Localization, lost: set[str]) -> None:
    """Matches are those of one machine, without those that are lost, and nothing else changed."""
    left = [match for match in expected.matches if match.image not in lost]
    assert [(m.image, m.similarity, m.score) for m in answer.matches] == [
        (m.image, m.similarity, m.score) for m in left
    ]


def test_shards_rank_as_one_machine_does_and_a_killed_one_is_waited_for(index, queries, verifier, thumbnail_extractor):
    conditions = Conditions(index.spec.fingerprint, "magsac", 12)
    calibration = Calibration(conditions, 25.0, 0.5, 10, 5, 27, -3.0, {"score": 1.0, "margin": 0.5})
    alone = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, rerank=12, calibration=calibration)
    assert alone.localize(queries[0]).matches[0].probability is not None
    with ShardedIndex.open(index.folder, verifier, shards=3) as places:
        assert len(places.shards) == 3
        assert len(places) == len(index) == 27
        assert_answers(places, alone, queries)
        with pytest.raises(BadInputError, match="id 3"):
            places.pinned().records([3])
        killed = process_of(places, 1)
        os.kill(killed, signal.SIGKILL)
        assert_answers(places, alone, queries[:2])
        assert process_of(places, 1) != killed
        os.kill(process_of(places, 0), signal.SIGKILL)
        os.kill(process_of(places, 2), signal.SIGKILL)
        assert_answers(places, alone, queries[2:4])


def test_shards_stop_early_as_one_machine_does(index, queries, verifier, thumbnail_extractor):
    alone = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, stop_early=0.5)
    answers = [alone.localize(query, top_k=20) for query in queries]
    assert any(match.skipped for answer in answers for match in answer.matches)
    with ShardedIndex.open(index.folder, verifier, shards=3) as places:
        assert_answers(places, alone, queries)


def test_a_node_that_dies_takes_no_answer_with_it(cluster, index, queries, verifier, thumbnail_extractor):
    alone = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor)
    with ShardedIndex.open(index.folder, verifier, shards=3) as places:
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        assert_answers(places, alone, queries[:2])
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def test_a_shard_that_stays_away_fails_the_query_or_is_reported(
    index, queries, thorough_verifier, thumbnail_extractor, monkeypatch
):
    query = queries[0]
    alone = Localizer(VerifiedIndex(index, thorough_verifier), thumbnail_extractor)
    expected = alone.localize(query, top_k=27)
    with ShardedIndex.open(index.folder, thorough_verifier, shards=3, timeout_s=2.0) as places:
        localizer = Localizer(places, thumbnail_extractor)
        with stopped(process_of(places, 1)), pytest.raises(ShardsMissingError, match="shard 2 of 3 of index"):
            localizer.localize(query)
        places._missing = "report"
        with stopped(process_of(places, 1)):
            answer = localizer.localize(query, top_k=27)
        assert answer.missing_shards == ("shard 2 of 3",)
        assert_right_but_for(answer, expected, held_by(places, 1, index))
        time.sleep(1)
        assert_same(localizer.localize(query, top_k=27), expected)

        search = ShardedQuery.search

        def die_after_the_search(query, descriptors, count, codes=None):
            found = search(query, descriptors, count, codes)
            end_for_good(places, 2)
            return found

        monkeypatch.setattr(ShardedQuery, "search", die_after_the_search)
        answer = localizer.localize(query, top_k=27)
        assert answer.missing_shards == ("shard 3 of 3",)
        assert_right_but_for(answer, expected, held_by(places, 2, index))
        monkeypatch.undo()
        started = time.monotonic()
        assert localizer.localize(query).missing_shards == ("shard 3 of 3",)
        assert time.monotonic() - started < 2.0
        places._missing = "fail"
        with pytest.raises(ShardsMissingError, match=r"shard 3 of 3 of index .*\(all its actors are dead\)"):
            localizer.localize(query)
        end_for_good(places, 0)
        end_for_good(places, 1)
        places._missing = "report"
        answer = localizer.localize(query)
        assert (answer.matches, len(answer.missing_shards)) == ((), 3)


def test_with_two_replicas_one_that_dies_or_hangs_is_not_noticed(index, queries, thumbnail_extractor, verifier):
    alone = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor)
    with ShardedIndex.open(index.folder, verifier, shards=2, replicas=2, timeout_s=6.0) as places:
        end_for_good(places, 0, replica=1)
        assert_answers(places, alone, queries)
        with stopped(process_of(places, 1, replica=0)):
            assert_answers(places, alone, queries[:3])


def test_damage_is_told_as_it_is_and_so_is_an_index_that_was_rewritten(index, queries, thumbnail_extractor, tmp_path):
    vectors = index.folder / "segments" / index.manifest.segments[-1].name / "vectors.f32"
    sound = vectors.read_bytes()
    vectors.write_bytes(sound[:-1] + b"?")
    with ShardedIndex.open(index.folder, None, shards=2) as places:
        with pytest.raises(IndexDamagedError, match=r"vectors\.f32"):
            Localizer(places, thumbnail_extractor).localize(queries[0])
        vectors.write_bytes(sound)
        index.compact()
        os.kill(process_of(places, 0), signal.SIGKILL)
        with pytest.raises(ShardsMissingError, match="rewritten since it was opened"):
            Localizer(places, thumbnail_extractor).localize(queries[0])
    (index.folder / "segments" / index.manifest.segments[0].name / "rows.bin").write_bytes(b"")
    with pytest.raises(IndexDamagedError, match=r"rows\.bin"):
        ShardedIndex.open(index.folder, None, shards=2)
    with pytest.raises(BadInputError, match="at least 1"):
        ShardedIndex.open(index.folder, None, shards=0)
