"""Labelled queries become examples of known and of unknown places."""

from dataclasses import replace

import pytest

from vpr_dhe.datasets import read_places
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration.examples import run_queries
from vpr_dhe.evaluation.calibration.labelled_queries import labelled_queries
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import PinnedIndex, VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

AFTER_A_COARSE_PASS = Verifier(build_estimator("magsac"), shortlist_size=2)


@pytest.fixture
def dataset(place_tree):
    return read_places(place_tree())


@pytest.fixture
def index(dataset, tmp_path, thumbnail_extractor) -> PlaceIndex:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, dataset.database.folder, codec="float16")
    index.add(dataset.database.records, thumbnail_extractor)
    return index


@pytest.mark.parametrize(
    "built", [None, Verifier(build_estimator("magsac")), AFTER_A_COARSE_PASS], ids=["none", "magsac", "coarse"]
)
def test_every_query_is_localized_with_its_place_and_without(dataset, index, thumbnail_extractor, built):
    queries = labelled_queries(dataset, index)
    run = run_queries(queries, PinnedIndex(index.snapshot, built), thumbnail_extractor, rerank=6, radius_m=25.0)
    assert len(run.examples) == 2 * len(queries)
    as_they_are, without = run.examples[::2], run.examples[1::2]
    # The first of the two is what the localizer answers.
    localizer = Localizer(VerifiedIndex(index, built), thumbnail_extractor, rerank=6)
    for query, example in zip(queries, as_they_are, strict=True):
        best = localizer.localize(query.load()).matches[0]
        assert (example.features.score, example.features.similarity) == (best.score, best.similarity)
        assert example.right == (index.find(best.image) in query.shown_by)
        assert example.place_known
    assert sum(example.right for example in as_they_are) >= 9
    assert not any(example.right or example.place_known for example in without)
    # The second is what it answers where the place is not in the index at all.
    index.remove(sorted(queries[0].shown_by))
    best = localizer.localize(queries[0].load()).matches[0]
    assert (without[0].features.score, without[0].features.similarity) == (best.score, best.similarity)


def test_a_query_whose_place_is_not_indexed_is_localized_once(dataset, index, thumbnail_extractor):
    gone = labelled_queries(dataset, index)[0].shown_by
    index.remove(sorted(gone))
    queries = labelled_queries(dataset, index)
    assert queries[0].shown_by == frozenset()
    run = run_queries(queries[:1], PinnedIndex(index.snapshot, None), thumbnail_extractor, rerank=6, radius_m=25.0)
    assert [(example.right, example.place_known) for example in run.examples] == [(False, False)]


def test_unreadable_queries_are_named(dataset, index, thumbnail_extractor):
    queries = labelled_queries(dataset, index)[:2]
    (dataset.queries.folder / queries[0].name).write_bytes(b"words")
    places = PinnedIndex(index.snapshot, None)
    run = run_queries(queries, places, thumbnail_extractor, rerank=6, radius_m=25.0)
    assert [image.path for image in run.unreadable] == [queries[0].name]
    with pytest.raises(BadInputError, match="no query could be read"):
        run_queries(queries[:1], places, thumbnail_extractor, rerank=6, radius_m=25.0)


def test_another_database_and_secret_answers_are_refused(dataset, index):
    with pytest.raises(BadInputError, match="not public"):
        labelled_queries(replace(dataset, positives=None), index)
    index.remove(index.ids)
    with pytest.raises(BadInputError, match="holds none of the 24 database images"):
        labelled_queries(dataset, index)
