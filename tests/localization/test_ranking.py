"""Order of candidates: by inliers, and by inliers and similarity together."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe import Localizer, PlaceIndex, build_verifier
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.ranking import SIMILARITY_WEIGHT, ranked
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.records import Verification


def verified(id: int, similarity: float, inliers: int) -> Candidate:
    points = np.zeros((inliers, 2))
    return Candidate(id, similarity, similarity, Verification(np.eye(3), float(inliers), points, points))


def candidates(*pairs: tuple[float, int]) -> list[Candidate]:
    return [verified(id, similarity, inliers) for id, (similarity, inliers) in enumerate(pairs)]


WRONG = [(0.30 - 0.002 * number, 8 + number % 5) for number in range(20)]


def ids(found):
    return [one.id for one in found]


def test_similarity_decides_between_candidates_of_about_as_many_inliers():
    found = candidates((0.60, 60), (0.32, 62), *WRONG)
    assert ids(ranked(found, "inliers"))[:2] == [1, 0]
    assert ids(ranked(found, "evidence"))[:2] == [0, 1]


def test_many_more_inliers_win_over_similarity():
    assert ids(ranked(candidates((0.60, 12), (0.32, 62), *WRONG), "evidence"))[0] == 1


def test_evidence_is_the_sum_of_two_robust_z_scores():
    found = candidates((0.5, 40), *WRONG)
    best = ranked(found, "evidence")[0]
    counts = 2 * np.sqrt(np.array([40, *(inliers for _, inliers in WRONG)]) + 3 / 8)
    similarities = np.array([0.5, *(similarity for similarity, _ in WRONG)])
    z_counts, z_similarities = (
        (x[0] - np.median(x)) / max(1.4826 * np.median(abs(x - np.median(x))), min_deviation)
        for x, min_deviation in ((counts, 1.0), (similarities, 0.01))
    )
    assert best.evidence == pytest.approx(z_counts + SIMILARITY_WEIGHT * z_similarities)
    assert (best.score, best.rank_value) == (40.0, best.evidence)


def test_ties_keep_the_order_of_retrieval():
    same = candidates(*[(0.4, 9)] * 6)
    assert ids(ranked(same, "evidence")) == ids(ranked(same, "inliers")) == list(range(6))
    assert ids(ranked([], "evidence")) == []
    assert ranked(candidates((0.9, 100)), "evidence")[0].evidence == 0.0


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 500)), min_size=2, max_size=30),
    st.integers(0, 29),
    st.integers(0, 100),
    st.floats(0, 0.5),
)
def test_more_of_both_is_never_ranked_below(pairs, place, more_inliers, more_similar):
    """A candidate that has at least as much of both as another comes first, whatever the rest of the list is."""
    similarity, inliers = pairs[place % len(pairs)]
    better = verified(len(pairs), similarity + more_similar, inliers + more_inliers)
    found = sorted([*candidates(*pairs), better], key=lambda one: -one.similarity)
    order = ids(ranked(found, "evidence"))
    if more_similar > 1e-6:
        assert order.index(better.id) < order.index(place % len(pairs))
    assert np.isfinite([one.evidence for one in ranked(found, "evidence")]).all()


def test_an_index_remembers_its_order(tmp_path, thumbnail_extractor):
    made = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, tmp_path)
    assert made.manifest.settings.rank_by == "inliers"
    made.configure(rank_by="evidence")
    assert PlaceIndex.open(tmp_path / "index").manifest.settings.rank_by == "evidence"
    other = PlaceIndex.create(tmp_path / "other", thumbnail_extractor.spec, tmp_path, rank_by="evidence")
    assert other.manifest.settings.rank_by == "evidence"


def test_a_calibration_is_for_one_order():
    conditions = Conditions("f" * 64, "magsac", 20, rank_by="evidence")
    conditions.require("f" * 64, 20, "evidence")
    with pytest.raises(BadInputError, match="ranked by evidence, not by inliers"):
        conditions.require("f" * 64, 20, "inliers")
    replace(conditions, verifier="none").require("f" * 64, 20, "inliers")


def test_the_localizer_ranks_as_it_is_told(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    database = VerifiedIndex(index, build_verifier("magsac"))
    by = {}
    for rank_by in ("inliers", "evidence"):
        localizer = Localizer(database, thumbnail_extractor, rerank=12, rank_by=rank_by)
        by[rank_by] = localizer.localize(photo_folder / "02.png", top_k=12)
    assert all(match.evidence is None for match in by["inliers"].matches)
    evidence = [match.evidence for match in by["evidence"].matches]
    assert evidence == sorted(evidence, reverse=True)
    assert {m.image: m.inliers for m in by["inliers"].matches} == {m.image: m.inliers for m in by["evidence"].matches}
