"""The map decides: what helps on held-out places is used, and nothing else."""

import numpy as np

from tests.index.adaptation.towns import DIMENSION, town
from vpr_dhe.index.adaptation.cross_validation import standard_error
from vpr_dhe.index.adaptation.fitting import fit
from vpr_dhe.index.adaptation.map_images import MapImages, mask_of
from vpr_dhe.index.adaptation.pairs import MAX_PAIRS, pairs_of
from vpr_dhe.index.vectors import Stack
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition


def along_a_line(count: int, **facts) -> list[ImageRecord]:
    return [ImageRecord(f"{n}.jpg", MetricPosition(5.0 * n, 0.0), **facts) for n in range(count)]


def test_light_that_drowns_the_places_is_whitened_away():
    vectors, records = town(100, 6)
    found = fit(Stack([vectors]), MapImages.of(records), unit_norm=True)
    assert "whitening" in found.report.steps
    assert found.report.source == "positions"
    assert found.transform is not None
    # The directions of the light are the first eight.
    gains = np.linalg.norm(
        np.eye(DIMENSION) + found.transform.axes.T @ np.diag(found.transform.gains) @ found.transform.axes, axis=0
    )
    assert gains[:8].max() < gains[8:].min()


def test_nothing_is_done_where_retrieval_is_right_anyway():
    vectors, records = town(100, 6, nuisance=0.0)
    found = fit(Stack([vectors]), MapImages.of(records), unit_norm=True)
    assert found.report.steps == ()
    assert found.transform is None
    assert found.report.recall_at_1 > 99


def test_nothing_is_done_where_vectors_are_noise():
    random = np.random.default_rng(0)
    vectors = random.standard_normal((600, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = []
    for seed in range(10):
        rows = np.random.default_rng(seed).permutation(600)
        found = fit(Stack([vectors[rows]]), MapImages.of(town(100, 6)[1]), unit_norm=True)
        chosen += found.report.steps
    assert len(chosen) <= 3, "one trial in twenty passes by chance"


def test_a_map_without_positions_or_times_teaches_nothing():
    vectors, records = town(30, 4)
    found = fit(Stack([vectors]), MapImages.of([ImageRecord(one.path) for one in records]), unit_norm=True)
    assert (found.transform, found.report.source, found.report.trials) == (None, None, ())


def test_verified_pairs_stand_in_for_positions():
    vectors, records = town(100, 6)
    rows = np.arange(600).reshape(100, 6)
    pairs = np.concatenate([rows[:, [left, right]] for left in range(6) for right in range(left)])
    images = MapImages.of([ImageRecord(one.path) for one in records])
    found = fit(Stack([vectors]), images, unit_norm=True, verified=np.sort(pairs, axis=1))
    assert found.report.source == "verified pairs"
    assert "whitening" in found.report.steps
    assert "hubs" not in [trial.step for trial in found.report.trials], "places of hubs are unknown"


def test_the_same_map_gives_the_same_adaptation():
    vectors, records = town(100, 6)
    first, second = (fit(Stack([vectors]), MapImages.of(records), unit_norm=True) for _ in range(2))
    assert first.report == second.report
    np.testing.assert_array_equal(first.transform.gains, second.transform.gains)


def test_images_of_one_drive_are_no_answers_to_each_other():
    times = [ImageRecord(f"{n}.jpg", MetricPosition(float(n), 0.0), timestamp_s=10.0 * n) for n in range(100)]
    times += [
        ImageRecord(f"late {n}.jpg", MetricPosition(float(n), 0.0), timestamp_s=9000.0 + 10 * n) for n in range(100)
    ]
    recent = MapImages.of(times).recent(np.array([50, 150]))
    assert recent[0].tolist() == list(range(20, 81))
    assert recent[1].tolist() == list(range(120, 181))
    stills = MapImages.of([ImageRecord(f"{n}.jpg", timestamp_s=100.0 * n) for n in range(10)])
    assert [found.tolist() for found in stills.recent(np.array([3]))] == [[3]]


def test_pairs_look_the_same_way_and_are_near():
    images = MapImages.of(
        [ImageRecord(f"{n}.jpg", MetricPosition(5.0 * (n // 2), 0.0), heading_deg=180.0 * (n % 2)) for n in range(40)]
    )
    pairs = pairs_of(images, "positions")
    apart = np.abs(images.points_m[pairs[:, 0], 0] - images.points_m[pairs[:, 1], 0])
    assert (images.headings_deg[pairs[:, 0]] == images.headings_deg[pairs[:, 1]]).all()
    assert apart.max() == 20
    assert len(pairs) == 2 * (19 + 18 + 17 + 16)


def test_neighbours_in_time_are_pairs_but_file_order_is_not_time():
    shuffled = np.random.default_rng(0).permutation(50)
    images = MapImages.of([ImageRecord(f"{n}.jpg", timestamp_s=2.0 * t) for n, t in enumerate(shuffled)])
    pairs = pairs_of(images, "times")
    assert {abs(int(shuffled[a]) - int(shuffled[b])) for a, b in pairs} == {1}
    assert len(pairs) == 49


def test_pairs_of_a_large_map_are_a_sample():
    images = MapImages.of(along_a_line(20_000))
    assert len(pairs_of(images, "positions")) == 4 * MAX_PAIRS


def test_positions_across_the_date_line_are_near():
    records = [ImageRecord("a.jpg", GeoPosition(0.0, 179.9999)), ImageRecord("b.jpg", GeoPosition(0.0, -179.9999))]
    images = MapImages.of(records)
    assert mask_of(images.near(np.array([0])), 2).tolist() == [[True, True]]


def test_positions_of_two_kinds_count_as_unknown():
    mixed = [ImageRecord("a.jpg", GeoPosition(0.0, 0.0)), ImageRecord("b.jpg", MetricPosition(0.0, 0.0))]
    assert not MapImages.of(mixed).have_positions


def test_the_error_of_a_mean_counts_places_not_images():
    random = np.random.default_rng(0)
    places = random.standard_normal(200)
    once = standard_error(places, np.arange(200))
    assert once == np.std(places, ddof=1) / np.sqrt(200)
    repeated = standard_error(np.repeat(places, 9), np.repeat(np.arange(200), 9))
    np.testing.assert_allclose(repeated, once)
