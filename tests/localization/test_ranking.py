"""Order of candidates: by inliers, and by inliers and similarity together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe import Localizer, PlaceIndex, build_verifier
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.ranking import SIMILARITY_WEIGHT, ranked, require_rerank, rerank, weighted_inliers
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.records import NOT_VERIFIED, Features, Frame, GreyLevels, Grid, ImageRecord, Size, Verification


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


def test_evidence_weighs_inliers_by_their_similarity():
    found = candidates((0.32, 45), (0.32, 40), *WRONG)
    found[1] = replace(found[1], verification=replace(found[1].verification, inlier_weight=1.5))
    assert ids(ranked(found, "inliers"))[:2] == [0, 1]
    assert ids(ranked(found, "evidence"))[:2] == [1, 0]


@given(st.lists(st.integers(0, 90), min_size=1, max_size=20), st.floats(0.01, 1))
def test_equal_weights_are_no_weights(counts, weight):
    verifications = [replace(verified(0, 0.5, count).verification, inlier_weight=weight) for count in counts]
    assert weighted_inliers(verifications) == pytest.approx(counts)


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


class ThreeAtMost:
    """A database that verifies three candidates after a coarse pass, whose votes it knows."""

    verifies, shortlist_size = True, 3
    grey_levels = GreyLevels()
    missing_shards: frozenset[str] = frozenset()
    adaptation = codec = nearby = None

    def __init__(self, votes: dict[int, int], inliers: dict[int, int]) -> None:
        self.votes, self.inliers, self.verified = votes, inliers, []

    def shift_votes(self, query, ids):
        return {id: float(self.votes[id]) for id in ids if id in self.votes}

    def verify(self, image, query, ids):
        self.verified += ids
        return {id: verified(id, 0.0, self.inliers.get(id, 5)).verification for id in ids}

    def image_ids(self):
        raise NotImplementedError

    def restricted_to(self, near):
        raise NotImplementedError

    def search(self, descriptors, count, codes=None):
        raise NotImplementedError

    def records(self, ids):
        return {id: ImageRecord(f"{id}.jpg") for id in ids}


def reranked(database: ThreeAtMost, count: int, similarities: list[float], rank_by="inliers") -> list[Candidate]:
    size = Size(16, 16)
    features = Features(torch.ones(1), torch.ones(1, 1), Grid(1, 1), Frame(size, size))
    found = [Candidate(id, similarity, similarity) for id, similarity in enumerate(similarities)]
    return rerank(database, np.zeros((16, 16, 3), np.uint8), features, found, count, rank_by)


@pytest.mark.parametrize("rank_by", ["inliers", "evidence"])
def test_a_coarse_pass_selects_what_is_verified_and_orders_the_rest(rank_by):
    database = ThreeAtMost({0: 4, 1: 5, 2: 30, 3: 4, 4: 25, 5: 6, 6: 20}, {4: 60})
    found = reranked(database, 7, [0.5] * 9, rank_by)
    assert database.verified == [2, 4, 6]
    assert ids(found) == [4, 2, 6, 5, 1, 0, 3, 7, 8]
    assert [one.verification.attempted for one in found] == [True] * 3 + [False] * 6
    assert [one.evidence is None for one in found] == [rank_by == "inliers"] * 3 + [True] * 6


@pytest.mark.parametrize("unit", [0, 1e-6, 1e6])
def test_the_unit_of_votes_changes_nothing_and_without_votes_similarity_selects(unit):
    votes = {0: 5, 1: 9, 2: 30, 3: 28, 4: 26, 5: 4}
    database = ThreeAtMost({id: unit * one for id, one in votes.items()}, {})
    reranked(database, 6, [0.34, 0.33, 0.32, 0.31, 0.3, 0.29])
    assert database.verified == ([2, 3, 4] if unit else [0, 1, 2])
    reranked(ThreeAtMost({}, {}), 6, [0.5] * 6)


def test_a_candidate_that_is_far_more_similar_is_verified_without_votes():
    database = ThreeAtMost({0: 5, 1: 9, 2: 9, 3: 9, 4: 5}, {})
    reranked(database, 5, [0.9, 0.31, 0.31, 0.3, 0.3])
    assert database.verified == [0, 1, 2]


def test_few_candidates_are_verified_without_a_coarse_pass():
    database = ThreeAtMost({}, {})
    assert len(reranked(database, 3, [0.5] * 3)) == 3
    assert database.verified == [0, 1, 2]


def test_the_coarse_pass_leaves_candidates_of_missing_shards_out():
    database = ThreeAtMost({0: 5, 1: 6, 3: 7, 4: 8}, {})
    assert ids(reranked(database, 5, [0.5] * 6)) == [1, 3, 4, 0, 5]


def test_evidence_of_a_shortlist_is_above_its_lower_quartile_and_the_similarity_of_all():
    """What a coarse pass selects is mostly right, and as similar as what is right."""
    inliers, similarities = [40, 12, 45, 50], [0.8, 0.5, 0.81, 0.79]
    left_out = [0.3, 0.31, 0.29, 0.28, 0.3]
    shortlist = candidates(*zip(similarities, inliers, strict=True))
    others = [Candidate(10 + number, one, one, NOT_VERIFIED) for number, one in enumerate(left_out)]
    found = {one.id: one.evidence for one in ranked([*others, *shortlist], "evidence")}
    counts = 2 * np.sqrt(np.array(inliers) + 3 / 8)
    above = counts - np.quantile(counts, 0.25)
    z_counts = above / max(1.0, 1.4826 * np.median(abs(above)))
    of_all = np.array([*similarities, *left_out])
    deviation = 1.4826 * np.median(abs(of_all - np.median(of_all)))
    z_similarities = (of_all - np.median(of_all))[:4] / deviation
    assert [found[id] for id in range(4)] == pytest.approx(z_counts + SIMILARITY_WEIGHT * z_similarities)
    assert [found[one.id] for one in others] == [None] * 5
    assert [one.id for one in ranked([*others, *shortlist], "inliers")] == [3, 2, 0, 1, 10, 11, 12, 13, 14]


def test_at_least_one_candidate_is_verified():
    require_rerank(1)
    with pytest.raises(BadInputError, match="rerank is 0; expected at least 1"):
        require_rerank(0)
