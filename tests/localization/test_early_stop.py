"""Early stop of verification: lists with a known stopping point."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe import Localizer, PlaceIndex, SequenceLocalizer, build_verifier
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.calibration.features import calibration_features
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.early_stop import SAFE_MARGIN, parts, stands_out
from vpr_dhe.localization.ranking import ranked_matches, rerank
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.records import Features, Frame, GreyLevels, Grid, ImageRecord, Size, Verification
from vpr_dhe.report.tables.answer_documents import answer_document
from vpr_dhe.report.tables.answer_formats import LINE_FORMATS, SHEET_FORMATS
from vpr_dhe.report.tables.answers import Answer, AnswerSheet

IMAGE = np.zeros((16, 16, 3), np.uint8)
FEATURES = Features(torch.ones(1), torch.ones(1, 1), Grid(1, 1), Frame(Size(16, 16), Size(16, 16)))


def verification(inliers: int) -> Verification:
    points = np.zeros((inliers, 2))
    return Verification(np.eye(3), float(inliers), points, points)


class Counted:
    """A database that knows the inliers of each image, and notes which were verified together."""

    verifies = True
    grey_levels = GreyLevels()
    missing_shards: frozenset[str] = frozenset()
    adaptation = codec = None
    nearby = None
    shortlist_size = None

    def shift_votes(self, query, ids):
        raise AssertionError("all candidates are verified")

    def __init__(self, inliers: Sequence[int], missing: Sequence[int] = ()) -> None:
        self.inliers, self.missing, self.calls = inliers, missing, []

    def verify(self, image, query, ids: Sequence[int]) -> Mapping[int, Verification]:
        self.calls.append(list(ids))
        return {id: verification(self.inliers[id]) for id in ids if id not in self.missing}

    def image_ids(self):
        raise NotImplementedError

    def restricted_to(self, near):
        raise NotImplementedError

    def search(self, descriptors, count):
        raise NotImplementedError

    def records(self, ids):
        return {id: ImageRecord(f"{id}.jpg") for id in ids}


def candidates(count: int) -> list[Candidate]:
    return [Candidate(id, 0.9 - 0.001 * id, 0.9 - 0.001 * id) for id in range(count)]


def run(inliers: Sequence[int], margin: float | None, *, count: int = 100, rank_by="inliers", missing=()):
    database = Counted(inliers, missing)
    ranked = rerank(database, IMAGE, FEATURES, candidates(len(inliers)), count, rank_by, stop_early=margin)
    return database, ranked


def chance(count: int, **right: int) -> list[int]:
    """Inliers of wrong candidates, 9 to 12, and of right ones by their place in the order of retrieval."""
    found = [9 + number % 4 for number in range(count)]
    for place, inliers in right.items():
        found[int(place[1:])] = inliers
    return found


@pytest.mark.parametrize(("count", "sizes"), [(100, [10, 15, 75]), (12, [10, 2]), (10, [10]), (3, [3]), (0, [])])
def test_parts(count, sizes):
    assert [len(range(count)[part]) for part in parts(count, None)] == sizes


@pytest.mark.parametrize(("count", "sizes"), [(100, [10, 90]), (21, [10, 11]), (20, [10, 10]), (3, [3])])
def test_a_coarse_pass_takes_all_but_the_first_part(count, sizes):
    assert [len(range(count)[part]) for part in parts(count, 20)] == sizes


@given(st.integers(0, 300), st.none() | st.integers(1, 40))
def test_parts_are_all_candidates_in_order(count, size):
    assert [place for part in parts(count, size) for place in range(count)[part]] == list(range(count))


def test_the_margin_is_in_deviations_above_the_lower_quartile():
    found = [Candidate(id, 0.5, 0.5, verification(inliers)) for id, inliers in enumerate([40, 12, *[10] * 8])]
    distance = 2 * (40 + 3 / 8) ** 0.5 - 2 * (10 + 3 / 8) ** 0.5
    assert stands_out(found, distance - 1e-6)
    assert not stands_out(found, distance + 1e-6)
    assert not stands_out([], 1.0)


@pytest.mark.parametrize("rank_by", ["inliers", "evidence"])
@pytest.mark.parametrize(
    ("inliers", "calls"),
    [
        (chance(100, p3=90), [10]),
        (chance(100, p0=90, p1=85, p2=80, p3=75, p4=70, p5=66), [10]),
        (chance(100, p17=90), [10, 15]),
        (chance(100, p60=90), [10, 15, 75]),
        (chance(100), [10, 15, 75]),
        ([80] * 10 + chance(90), [10, 15]),
        (chance(6, p3=90), [6]),
    ],
)
def test_verification_stops_where_the_best_stands_out(inliers, calls, rank_by):
    database, ranked = run(inliers, SAFE_MARGIN, rank_by=rank_by)
    assert [len(call) for call in database.calls] == calls
    assert [id for call in database.calls for id in call] == list(range(sum(calls)))
    assert sorted(one.id for one in ranked) == list(range(len(inliers)))
    assert [one.id for one in ranked[sum(calls) :]] == list(range(sum(calls), len(inliers)))
    assert [one.verification.attempted for one in ranked] == [place < sum(calls) for place in range(len(inliers))]


@given(st.integers(0, 2**16), st.integers(0, 80), st.integers(1, 120))
def test_it_never_stops_where_none_stands_out(seed, level, count):
    inliers = np.random.default_rng(seed).poisson(level, count).tolist()
    database, _ = run(inliers, SAFE_MARGIN, count=100)
    assert sum(map(len, database.calls)) == min(count, 100)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=110), st.floats(0.1, 20))
def test_the_verified_are_in_the_order_of_verifying_all(inliers, margin):
    database, ranked = run(inliers, margin)
    verified = {id for call in database.calls for id in call}
    _, everything = run(inliers, None)
    assert [one.id for one in ranked][: len(verified)] == [one.id for one in everything if one.id in verified]


def test_without_a_margin_all_are_verified_at_once():
    database, ranked = run(chance(120, p3=90), None)
    assert [len(call) for call in database.calls] == [100]
    assert [one.id for one in ranked[100:]] == list(range(100, 120))


def test_candidates_of_missing_shards_are_left_out_and_the_others_follow():
    _, ranked = run(chance(30, p3=90), SAFE_MARGIN, missing=(5, 12))
    assert ranked[0].id == 3
    assert sorted(one.id for one in ranked) == [id for id in range(30) if id != 5]


def answer(inliers: Sequence[int], margin: float | None) -> Answer:
    from vpr_dhe.records import Localization, Timing

    database, ranked = run(inliers, margin)
    matches = ranked_matches(ranked, database.records([one.id for one in ranked]))
    return Answer("query.jpg", Localization(tuple(matches), Timing(0.0, 0.0, 0.0)))


def test_unverified_matches_have_no_inliers_in_any_format():
    stopped = answer(chance(12, p3=90), SAFE_MARGIN)
    matches = answer_document(stopped)["matches"]
    assert [match["inliers"] for match in matches] == [90, *sorted(chance(10, p3=0), reverse=True)[:9], None, None]
    assert [match["score"] for match in matches[10:]] == [0.0, 0.0]
    assert all(match["homography"] is None for match in matches[10:])
    line = list(LINE_FORMATS["csv"].lines(stopped))[-1]
    assert line.startswith("query.jpg,12,11.jpg,0.889000,0,,")
    row = SHEET_FORMATS["table"](AnswerSheet("i", "m", "magsac", (stopped,))).splitlines()[-1]
    assert row.split() == ["12", "11.jpg", "0.889", "-", "-", "-"]


def test_unverified_matches_are_no_rivals():
    matches = answer(chance(12, p3=90), SAFE_MARGIN).localization.matches
    assert calibration_features(matches, 25.0) == calibration_features(matches[:10], 25.0)
    assert calibration_features(matches, 25.0).rival_score == 12.0
    assert calibration_features(matches[:1], 25.0).rival_score == 90.0


def test_a_calibration_is_for_one_margin():
    conditions = Conditions("f" * 64, "magsac", 20, stop_early=8.0)
    conditions.require("f" * 64, 20, "inliers", 8.0)
    with pytest.raises(BadInputError, match="for an early stop at a margin of 8, not for all candidates verified"):
        conditions.require("f" * 64, 20, "inliers")
    with pytest.raises(BadInputError, match="for all candidates verified, not for an early stop at a margin of 5"):
        Conditions("f" * 64, "magsac", 20).require("f" * 64, 20, "inliers", 5.0)
    Conditions("f" * 64, "none", 20).require("f" * 64, 20, "inliers", 5.0)


@pytest.fixture
def database(photo_folder, tmp_path, thumbnail_extractor) -> VerifiedIndex:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return VerifiedIndex(index, build_verifier("magsac"))


def test_the_localizer_stops_as_it_is_told(database, photo_folder, thumbnail_extractor):
    everything = Localizer(database, thumbnail_extractor, rerank=12).localize(photo_folder / "02.png", top_k=12)
    assert not any(match.skipped for match in everything.matches)
    localizer = Localizer(database, thumbnail_extractor, rerank=12, stop_early=0.1)
    stopped = localizer.localize(photo_folder / "02.png", top_k=12)
    assert [match.skipped for match in stopped.matches] == [False] * 10 + [True] * 2
    assert stopped.matches[0].image == everything.matches[0].image == "02.png"


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_margins_that_are_not_above_0_are_refused(database, thumbnail_extractor, margin):
    with pytest.raises(BadInputError, match="expected a margin in standard deviations above 0, such as 8"):
        Localizer(database, thumbnail_extractor, stop_early=margin)


def test_sequences_need_all_candidates(database, thumbnail_extractor):
    with pytest.raises(BadInputError, match="needs all candidates verified"):
        SequenceLocalizer(Localizer(database, thumbnail_extractor, stop_early=8.0))
