"""The filter against the forward recursion written out in full, and what it must hold whatever it sees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError
from vpr_dhe.records import RECONSTRUCTION, ImageRecord, MetricPosition, RankedMatch
from vpr_dhe.sequences.bayes_filter import FilterSettings, PlaceFilter
from vpr_dhe.sequences.frame_gaps import Pace
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.likelihood import NO_EVIDENCE
from vpr_dhe.sequences.motion import Mass, PositionMotion, RouteMotion
from vpr_dhe.sequences.odometry import Odometry, Step
from vpr_dhe.sequences.place_map import PlaceMap
from vpr_dhe.sequences.tracker import PlaceTracker

PIXELS = np.zeros((20, 20, 3), np.uint8)


def chances(belief: PlaceFilter, count: int) -> np.ndarray:
    """Probability of every place, then of the unknown state."""
    return np.append(belief.probability(np.arange(count)), belief.unknown)


def route_matrix(count: int, slowest: int, fastest: int, diffusion: float) -> np.ndarray:
    """Transition probabilities from row to column, place by place."""
    matrix = np.zeros((count, count))
    for place in range(count):
        for target in range(count):
            offset = target - place
            low, high = np.floor(slowest - 3 * diffusion), np.ceil(fastest + 3 * diffusion)
            if low <= offset <= high:
                matrix[place, target] = sum(
                    np.exp(-0.5 * ((offset - speed) / diffusion) ** 2) for speed in range(slowest, fastest + 1)
                )
        matrix[place] /= matrix[place].sum()
    return matrix


def forward(matrix: np.ndarray, frames, settings: FilterSettings) -> list[np.ndarray]:
    """A hidden Markov model by matrix products alone: N places just arrived at, N followed, and the unknown."""
    count = len(matrix)
    full = np.zeros((2 * count + 1, 2 * count + 1))
    arrived, followed, known = slice(0, count), slice(count, 2 * count), slice(0, 2 * count)
    full[known, followed] = (1 - settings.leave) * (1 - settings.relocate) * np.vstack([matrix, matrix])
    full[known, arrived] = (1 - settings.leave) * settings.relocate / count
    full[known, -1], full[-1, arrived], full[-1, -1] = settings.leave, settings.enter / count, 1 - settings.enter
    np.testing.assert_allclose(full.sum(axis=1), 1)
    belief = np.concatenate([np.full(count, (1 - settings.unknown) / count), np.zeros(count), [settings.unknown]])
    beliefs = []
    for number, (candidates, ratios) in enumerate(frames):
        belief = belief @ full if number else belief
        listed = len(candidates) / count
        likelihood = np.concatenate([np.full(count, settings.miss), np.full(count, NO_EVIDENCE), [1.0]])
        likelihood[candidates] = ratios * (1 - settings.miss * (1 - listed)) / listed
        likelihood[count + candidates] = ratios
        belief = belief * likelihood / (belief * likelihood).sum()
        beliefs.append(np.append(belief[arrived] + belief[followed], belief[-1]))
    return beliefs


@pytest.mark.parametrize(("slowest", "fastest", "diffusion"), [(0, 3, 1.0), (-2, 2, 0.5), (1, 1, 2.0)])
def test_the_filter_is_the_forward_recursion(slowest, fastest, diffusion):
    rng = np.random.default_rng(3)
    chosen = FilterSettings(unknown=0.3, leave=0.07, enter=0.2, relocate=0.03, miss=0.15)
    frames = [(rng.permutation(12)[:4], rng.lognormal(0, 2, 4)) for _ in range(8)]
    expected = forward(route_matrix(12, slowest, fastest, diffusion), frames, chosen)
    motion = RouteMotion(slowest=slowest, fastest=fastest, diffusion=diffusion)
    belief = PlaceFilter(motion, 12, chosen)
    for number, (frame, truth) in enumerate(zip(frames, expected, strict=True)):
        if number:
            belief.predict(Step())
        belief.update(*frame)
        np.testing.assert_allclose(chances(belief, 12), truth, atol=1e-12)


def test_few_kept_places_come_close_to_all():
    rng = np.random.default_rng(5)
    whole = PlaceFilter(RouteMotion(), 400, FilterSettings(support=400))
    small = PlaceFilter(RouteMotion(), 400, FilterSettings(support=60))
    for number in range(20):
        candidates = np.unique(np.append(rng.integers(0, 400, 8), 50 + number))
        ratios = np.where(candidates == 50 + number, 20.0, 0.7)
        for belief in (whole, small):
            belief.predict(Step())
            belief.update(candidates, ratios)
        assert len(small.followed.places) <= 60
        assert np.abs(chances(whole, 400) - chances(small, 400)).max() < 0.02


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    count=st.integers(1, 60),
    support=st.integers(1, 60),
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=6),
)
def test_probabilities_stay_probabilities(seed, count, support, steps):
    rng = np.random.default_rng(seed)
    belief = PlaceFilter(RouteMotion(slowest=-1, fastest=2), count, FilterSettings(support=support))
    for frames in steps:
        count += int(rng.integers(0, 3))
        belief.predict(Step(frames), count)
        np.testing.assert_allclose(chances(belief, count).sum(), 1)
        listed = rng.permutation(count)[: int(rng.integers(0, count + 1))]
        belief.update(listed, rng.lognormal(0, 8, len(listed)))
        everything = chances(belief, count)
        np.testing.assert_allclose(everything.sum(), 1)
        assert (everything >= 0).all()
        assert len(belief.followed.places) <= support or not len(listed)


def test_several_frames_are_as_many_single_ones_for_the_unknown():
    chosen = FilterSettings(unknown=0.3, leave=0.2, enter=0.05)
    one_by_one, at_once = PlaceFilter(RouteMotion(), 50, chosen), PlaceFilter(RouteMotion(), 50, chosen)
    for belief in (one_by_one, at_once):
        belief.update(np.arange(5), np.array([9.0, 1.0, 1.0, 0.5, 0.5]))
    for _ in range(7):
        one_by_one.predict(Step())
    at_once.predict(Step(7))
    assert at_once.unknown == pytest.approx(one_by_one.unknown)
    assert at_once.followed.mass.sum() == pytest.approx(one_by_one.followed.mass.sum())
    # After long, what was believed before is forgotten: the shares of time outside and inside are left.
    at_once.predict(Step(200))
    assert at_once.unknown == pytest.approx(0.2 / 0.25)
    np.testing.assert_allclose(chances(at_once, 50).sum(), 1)


def times_of(*times_s: float | None, **fields) -> list[Step]:
    pace = Pace()
    return [pace.step_to(SequenceFrame(PIXELS, time_s, **fields)) for time_s in times_s]


def test_a_gap_in_time_counts_as_the_frames_that_usually_fill_it():
    steps = times_of(0.0, 0.5, 1.0, 1.6, 2.1, 7.1, 7.6, 7.5, 8.0)
    assert [step.frames for step in steps] == [1, 1, 1, 1, 1, 10, 1, 1, 1]
    assert [step.seconds for step in steps[4:7]] == [pytest.approx(0.5), pytest.approx(5.0), pytest.approx(0.5)]
    # Those that were dropped came in that time; without times frames are what they are, and who waits goes nowhere.
    assert [step.frames for step in times_of(0.0, 1.0, 2.0, 3.0, dropped=2)] == [3, 3, 3, 3]
    assert [step.frames for step in times_of(0.0, None, 9.0)] == [1, 1, 1]
    assert [step.frames for step in times_of(0.0, 1.0, 2.0, 1e9)] == [1, 1, 1, 100]
    assert [step.frames for step in times_of(0.0, 1.0, 2.0, 9.0, odometry=Odometry(1.0))] == [1, 1, 1, 1]
    pace = Pace()
    went = [
        SequenceFrame(PIXELS, time_s, Odometry(moved))
        for time_s, moved in ((0.0, 0.0), (1.0, 2.0), (2.0, 2.0), (9.0, 8.0))
    ]
    assert [pace.step_to(frame).frames for frame in went] == [1, 1, 1, 4]


def test_a_camera_set_to_another_rate_is_followed():
    times_s = [*np.arange(50) * 0.1, *(4.9 + np.arange(1, 20))]
    frames = [step.frames for step in times_of(*(float(time_s) for time_s in times_s))]
    assert frames[:51] == [1] * 50 + [10]
    assert frames[-10:] == [1] * 10


@pytest.mark.parametrize("time_s", [float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(time_s):
    with pytest.raises(BadInputError, match=r"a frame has the time (nan|inf); expected"):
        SequenceFrame(PIXELS, time_s)


def test_a_gap_in_time_loosens_the_way():
    """Places 10 m apart, a frame each, and then one 30 places on: far too far for one step, but not for thirty."""
    believed = []
    for resumed_s in (5.0, 34.0):
        pace, belief = Pace(), PlaceFilter(RouteMotion(), 200)
        for number, time_s in enumerate((0.0, 1.0, 2.0, 3.0, 4.0, resumed_s)):
            step = pace.step_to(SequenceFrame(PIXELS, time_s))
            if number:
                belief.predict(step)
            place = 10 + number if number < 5 else 44
            belief.update(np.array([place, 100]), np.array([8.0, 1.0]))
        believed.append(belief.probability(np.array([44]))[0])
    assert believed[1] > 2 * believed[0]


def test_a_place_that_looks_like_another_is_told_apart_by_the_way_there():
    belief = PlaceFilter(RouteMotion(fastest=2), 100)
    # 20 and 80 look alike; only one of them comes after 16 to 19.
    for place in range(15, 20):
        belief.predict(Step())
        belief.update(np.array([place, 60]), np.array([5.0, 1.0]))
    belief.predict(Step())
    belief.update(np.array([20, 80]), np.array([20.0, 22.0]))
    here, there = belief.probability(np.array([20, 80]))
    assert here > 0.8
    assert there < 0.1


def test_the_unknown_is_entered_and_left():
    belief = PlaceFilter(RouteMotion(fastest=1), 2000)
    # Wrong candidates are the same in every frame, as they are of a camera that hardly moves.
    wrong, rng = np.arange(500, 509), np.random.default_rng(0)

    def see(place: int, ratio: float) -> float:
        belief.predict(Step())
        belief.update(np.append(place, wrong), np.append(ratio, rng.permutation(np.linspace(0.5, 1.5, 9))))
        return belief.unknown

    assert [see(100 + number, 30.0) for number in range(4)][-1] < 0.05
    away = [see(900, 0.6) for number in range(12)]
    assert min(away[4:]) > 0.6
    assert [see(110 + number, 30.0) for number in range(4)][-1] < 0.05


def grid_map(heading_deg: float | None = 0.0) -> PlaceMap:
    """Places every 10 m on a square of 6 x 6, numbered from the south-west, east first."""
    return PlaceMap(
        (number, ImageRecord(f"{number}.jpg", MetricPosition(10.0 * (number % 6), 10.0 * (number // 6)), heading_deg))
        for number in range(36)
    )


def mass_at(place: int) -> Mass:
    return Mass(np.array([place]), np.array([1.0]))


def test_a_step_in_the_plane_stays_within_the_speed():
    motion = PositionMotion(grid_map(), max_speed_m_s=4.0, deviation_m=0.5)
    reached = motion.spread(mass_at(14), Step(seconds=2.5), 36)
    assert set(reached.places.tolist()) == {8, 13, 14, 15, 20}
    np.testing.assert_allclose(reached.mass, 0.2)
    with pytest.raises(BadInputError, match="made for 36 places, but there are 37"):
        motion.spread(mass_at(14), Step(seconds=2.5), 37)
    with pytest.raises(BadInputError, match="no time"):
        motion.spread(mass_at(14), Step(), 36)


def test_a_step_of_no_mass_is_none():
    nowhere = Mass(np.empty(0, np.int64), np.empty(0))
    motion = PositionMotion(grid_map(), max_step_m=10.0)
    assert not len(motion.spread(nowhere, Step(), 36).places)
    belief = PlaceFilter(motion, 36)
    for seen in ([], [7]):  # a dark frame first, which is no evidence
        belief.update(np.array(seen, np.int64), np.full(len(seen), 30.0))
        belief.predict(Step())
    assert belief.probability(np.array([7]))[0] > 0


@pytest.mark.parametrize(
    ("odometry", "expected"),
    [
        (Odometry(10.0), {8, 13, 15, 20}),
        (Odometry(10.0, 0.0), {20}),
        (Odometry(10.0, 90.0), {15}),
        (Odometry.of_displacement(-10.0, 10.0), {9}),
        (Odometry(0.0), {14}),
        (Odometry(500.0), {14}),
    ],
)
def test_odometry_says_how_far_and_where_to(odometry, expected):
    motion = PositionMotion(grid_map(), max_step_m=30.0, deviation_m=1.0)
    reached = motion.spread(mass_at(14), Step(odometry=odometry), 36)
    assert set(reached.places[reached.mass > 0.01].tolist()) == expected
    np.testing.assert_allclose(reached.mass.sum(), 1)


def test_a_turn_leads_to_images_that_look_there():
    headings = (0.0, 90.0, 180.0, 270.0)
    places = PlaceMap(
        (number, ImageRecord(str(number), MetricPosition(0.0, 0.0), headings[number])) for number in range(4)
    )
    motion = PositionMotion(places, max_step_m=1.0, heading_deviation_deg=20.0)
    reached = motion.spread(mass_at(3), Step(odometry=Odometry(0.0, turn_deg=90.0)), 4)
    assert reached.places[reached.mass.argmax()] == 0
    assert reached.mass.max() > 0.99


def test_odometry_finds_the_way_where_images_cannot():
    """Every candidate list is the same: two places, always equally good."""
    beliefs = []
    for odometry in (None, Odometry(10.0, 90.0)):
        belief = PlaceFilter(PositionMotion(grid_map(), max_step_m=10.0, deviation_m=1.0), 36)
        for place in (12, 13, 14, 15):
            belief.update(
                np.array([place, place + 12]) if place == 12 else np.array([place, 33 - place]), np.full(2, 5.0)
            )
            belief.predict(Step(odometry=odometry))
        beliefs.append(belief.probability(np.array([16]))[0])
    assert beliefs[1] > 2 * beliefs[0]


def test_odometry_of_dropped_frames_adds_up():
    around = Odometry(1.0, 0.0, 90.0).then(Odometry(1.0, 0.0, 90.0))
    assert around.distance_m == pytest.approx(2**0.5)
    assert around.direction_deg == pytest.approx(45.0)
    assert around.turn_deg == 180.0
    assert Odometry(1.0).then(Odometry(2.0, 0.0)) == Odometry(3.0)


def test_places_are_numbered_along_the_route():
    by_name = PlaceMap((id, ImageRecord(f"frame{10 - id}.jpg")) for id in range(9))
    assert by_name.places_of([0, 8, 1]).tolist() == [8, 0, 7]
    by_time = PlaceMap((id, ImageRecord(f"{id}.jpg", timestamp_s=100.0 - id)) for id in range(9))
    assert [by_time.id_of(place) for place in range(9)] == list(range(8, -1, -1))
    by_time.append(40)
    assert by_time.places_of([40]).tolist() == [9]
    with pytest.raises(BadInputError, match="after the stream began"):
        by_time.places_of([41])
    with pytest.raises(BadInputError, match="has a position"):
        by_time.positions_m()
    with pytest.raises(BadInputError, match="unit is unknown"):
        PlaceMap([(0, ImageRecord("0.jpg", MetricPosition(0.0, 0.0, RECONSTRUCTION)))]).positions_m()


@pytest.mark.parametrize("bad", [{"unknown": 1.5}, {"miss": -0.1}, {"support": 0}])
def test_settings_are_probabilities(bad):
    with pytest.raises(BadInputError, match="expected probabilities"):
        FilterSettings(**bad)


def test_a_place_of_many_images_goes_before_a_more_probable_image():
    records = [ImageRecord(f"{number}.jpg", MetricPosition(2.0 * number, 0.0)) for number in range(100)]
    places = PlaceMap(enumerate(records))

    class Given:
        def ratios(self, _):
            ratios = np.full(100, 0.1)
            ratios[20:30], ratios[80] = 75.0, 120.0
            return ratios

    motion = PositionMotion(places, max_step_m=2.0)
    tracker = PlaceTracker(places, motion, likelihood=Given())
    tracker.follow(
        [RankedMatch(1, record.path, 0.5, 0.0, None, None, id=id) for id, record in enumerate(records)], Step()
    )
    (first, here), (second, there) = tracker.likeliest(2)
    assert first in range(20, 30)
    assert second == 80
    assert here > 2 * there


def test_a_long_gap_gives_the_belief_up_without_looking_for_all_places_in_reach():
    class Refusing(RouteMotion):
        def spread(self, belief, step, count):
            raise AssertionError("a map of a million images is in reach")

    belief = PlaceFilter(Refusing(), 50)
    belief.update(np.arange(5), np.array([9.0, 1.0, 1.0, 0.5, 0.5]))
    belief.predict(Step(100))
    assert not len(belief.followed.places)
    assert belief.unknown + 50 * belief.probability(np.array([7]))[0] == pytest.approx(1)
