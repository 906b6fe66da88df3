"""The stage of the dhe-lite head, on exact matches out of nothing and on textures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from patches import PatchExtractor, write_textures

from vpr_dhe.datasets.augmentation import random_homography
from vpr_dhe.errors import DatasetError
from vpr_dhe.geometry.coordinates import UNIT, corners
from vpr_dhe.geometry.homography import mean_corner_error, project
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Grid, Matches, Size
from vpr_dhe.training.dhe_lite import DheLiteSettings, DheLiteStage
from vpr_dhe.training.dhe_lite.batches import DheLiteBatches
from vpr_dhe.training.dhe_lite.match_confidence import REFERENCE, in_reference
from vpr_dhe.training.dhe_lite.matched_pairs import (
    Kind,
    MatchedPairs,
    views_of,
    with_fitted_homographies,
    with_nothing_in_common,
)
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.sources import TrainingData, open_training_data
from vpr_dhe.training.sources.base import PairSource
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.dhe_lite import DheLiteEstimator

GRID, SIZE = Grid(12, 16), Size(256, 192)
SETTINGS = DheLiteSettings(
    warmup_steps=1000, batch_size=4, pairs_per_round=6, epochs_per_round=2, max_matches=40, min_inliers=8
)
LONG = DheLiteSettings(batch_size=8, pairs_per_round=8, negatives=0.0, decay_steps=40, max_matches=40)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_textures(folder, 12)
    return open_training_data([str(folder)], SIZE)


def stage_on(data, settings=SETTINGS):
    return DheLiteStage(PatchExtractor(GRID, SIZE, 1.5), data, settings, training_data="textures, CC0")


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


def synthetic_pairs(seed, count=8, right=15, wrong=45, noise_px=0.0):
    """Matches between inputs and their homographies: first those that are right, to within `noise_px`."""
    random = np.random.default_rng(seed)
    homographies, found = [], []
    for _ in range(count):
        homography = torch.from_numpy(random_homography(REFERENCE, random))
        query = torch.from_numpy(random.uniform(0, 383, (right + wrong, 2)))
        candidate = project(homography, query) + torch.from_numpy(random.normal(0, noise_px, (right + wrong, 2)))
        candidate[right:] = torch.from_numpy(random.uniform(0, 383, (wrong, 2)))
        homographies.append(homography)
        found.append(Matches(query, candidate, torch.ones(right + wrong), tolerance_px=24.0))
    return found, torch.stack(homographies)


def known_pairs(seed, **counts):
    """As with photos that were warped."""
    found, homographies = synthetic_pairs(seed, **counts)
    pairs = with_nothing_in_common(found, REFERENCE)
    to_reference = in_reference(torch.eye(3, dtype=torch.float64)[None])[0]
    assert torch.allclose(to_reference, torch.eye(3, dtype=torch.float64))
    scale = REFERENCE.width / UNIT.width
    after = torch.tensor([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    between_units = torch.linalg.inv(after) @ homographies @ after
    return pairs._replace(homographies=between_units, kinds=torch.full_like(pairs.kinds, Kind.true))


def learn(stage, pairs, steps, folder, monkeypatch):
    """Train on these pairs in the place of rounds."""
    monkeypatch.setattr(type(stage), "steps_per_round", lambda self, processes: None)
    stage._round.pairs = pairs
    train(stage, loop(steps), folder)


@torch.no_grad()
def losses(stage, pairs):
    """On a batch of all of them."""
    settings = replace(stage._settings, batch_size=len(pairs.counts), max_matches=1000, max_dropped=0.0)
    batches = DheLiteBatches(PatchExtractor(tolerance_cells=1.5).spec, settings)
    batches.pairs = pairs
    return {name: float(value) for name, value in stage(batches.batch(Turn(0, 0, 1))).scalars.items()}


@torch.no_grad()
def confidences(stage, pairs):
    settings = replace(stage._settings, batch_size=len(pairs.counts), max_matches=1000, max_dropped=0.0)
    batches = DheLiteBatches(PatchExtractor(tolerance_cells=1.5).spec, settings)
    batches.pairs = pairs
    return stage.head(batches.batch(Turn(0, 0, 1)).matches).sigmoid()


@pytest.mark.slow
def test_it_overfits_eight_pairs(data, tmp_path, monkeypatch):
    settings = replace(LONG, max_matches=1000, max_dropped=0.0, decay_steps=90)
    stage = DheLiteStage(PatchExtractor(tolerance_cells=1.5), data, settings, training_data="x")
    pairs = known_pairs(0, right=25)
    before = losses(stage, pairs)
    learn(stage, pairs, 90, tmp_path / "run", monkeypatch)
    after = losses(stage, pairs)
    assert after["cross_entropy"] < 0.1 * before["cross_entropy"]
    assert after["fit_error_px"] < 0.1 * before["fit_error_px"]


@pytest.mark.slow
def test_rei_alone_lowers_rei_of_unseen_pairs(data, tmp_path, monkeypatch):
    """No homography is known, and nothing is distilled."""
    settings = replace(LONG, warmup_steps=0, known_share=0.0, distillation_weight=0.0, decay_steps=100)
    stage = DheLiteStage(PatchExtractor(tolerance_cells=1.5), data, settings, training_data="x")
    learned, unseen = (
        with_fitted_homographies(synthetic_pairs(seed, count, noise_px=3.0)[0], REFERENCE, 4)
        for seed, count in ((0, 64), (1, 16))
    )
    before = losses(stage, unseen)
    learn(stage, learned, 100, tmp_path / "run", monkeypatch)
    after = losses(stage, unseen)
    assert after["rei_px"] < 0.5 * before["rei_px"]
    assert after["cross_entropy"] == after["fit_error_px"] == 0


@pytest.mark.slow
def test_negatives_lower_the_confidence_in_matches_of_other_places(data, tmp_path, monkeypatch):
    related = known_pairs(0, count=24, right=45, wrong=15)
    unrelated = with_nothing_in_common(synthetic_pairs(1, 24, right=0, wrong=60)[0], REFERENCE)
    unseen = with_nothing_in_common(synthetic_pairs(2, 24, right=0, wrong=60)[0], REFERENCE)
    mean = {}
    for name, learned in (("without", [related]), ("with", [related, unrelated])):
        stage = DheLiteStage(PatchExtractor(tolerance_cells=1.5), data, LONG, training_data="x")
        learn(stage, MatchedPairs.joined(learned), 40, tmp_path / name, monkeypatch)
        mean[name] = float(confidences(stage, unseen).mean())
    assert mean["with"] < 0.7 * mean["without"]


@pytest.mark.parametrize("stops_at", [3, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 5, 8))])
def test_interrupted_within_a_round_it_gives_the_same_bits(data, tmp_path, stops_at):
    settings = replace(SETTINGS, warmup_steps=4)
    whole = stage_on(hidden(data), settings)
    assert whole.steps_per_round(processes=1) == 5
    train(whole, loop(8, save_every=1), tmp_path / "whole")
    train(stage_on(hidden(data), settings), loop(stops_at, save_every=1), tmp_path / "run")
    continued = stage_on(hidden(data), settings)
    train(continued, loop(8, save_every=1), tmp_path / "run")
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), continued.parameters(), strict=True))
    for name, value in whole.get_extra_state().items():
        assert torch.equal(value, continued.get_extra_state()[name]), name


class Hidden(PairSource):
    """As a source that does not know homographies."""

    knows_homographies = False

    def __init__(self, source):
        self._source, self.description = source, f"hidden: {source.description}"

    def __len__(self):
        return len(self._source)

    def pair(self, index, random):
        return replace(self._source.pair(index, random), homography=None)


def hidden(data):
    return TrainingData(data.warps, Hidden(data.positives), Hidden(data.validation))


def test_rounds_know_homographies_as_settings_say(data):
    def kinds(settings, step, data=data):
        stage = stage_on(data, replace(settings, pairs_per_round=8, min_inliers=4))
        stage.begin_round(step)
        return torch.bincount(stage._round.pairs.kinds, minlength=3).tolist(), stage.get_extra_state()["drawn"]

    warm = replace(SETTINGS, warmup_steps=10)
    assert kinds(warm, 9, hidden(data))[0] == [8, 0, 4]
    mixed, drawn = kinds(warm, 10, hidden(data))
    assert mixed[0] == 4
    assert 0 < mixed[1] <= 4
    assert drawn.tolist() == [4, 4]
    # Photos alone: all homographies are known, unless none is to be.
    assert kinds(warm, 10)[0] == [8, 0, 4]
    alone, _ = kinds(replace(warm, known_share=0.0, negatives=0.0), 10)
    assert alone[0] == alone[2] == 0
    assert alone[1] > 0


def test_rounds_go_on_where_the_last_one_ended(data):
    stage, twice = stage_on(data), stage_on(data, replace(SETTINGS, pairs_per_round=12, negatives=0.0))
    stage.begin_round(0)
    first = stage._round.pairs
    stage.begin_round(5)
    second = stage._round.pairs
    twice.begin_round(0)
    homographies = [pairs.homographies[pairs.kinds == Kind.true] for pairs in (first, second)]
    assert torch.equal(torch.cat(homographies), twice._round.pairs.homographies)


def test_batches_depend_on_the_turn_alone(data):
    one, double = stage_on(data), stage_on(data, replace(SETTINGS, batch_size=8))
    one.begin_round(0)
    double.set_extra_state(one.get_extra_state())
    halves = [one.batches.batch(Turn(1, process, 2)) for process in range(2)]
    together = double.batches.batch(Turn(1, 0, 1))
    assert torch.equal(torch.cat([half.homographies for half in halves]), together.homographies)
    counts = torch.cat([half.matches.present.sum(dim=1) for half in halves])
    assert torch.equal(counts, together.matches.present.sum(dim=1))
    assert counts.max() <= 40
    again = one.batches.batch(Turn(1, 0, 2))
    assert torch.equal(again.matches.query, halves[0].matches.query)


def test_a_round_of_which_nothing_can_be_learned_is_explained(data):
    stage = stage_on(hidden(data), replace(SETTINGS, warmup_steps=0, known_share=0.0, min_inliers=500, negatives=0.0))
    with pytest.raises(DatasetError, match="none of the 6 pairs has enough matches that agree"):
        stage.begin_round(0)


def test_held_out_pairs_are_measured_beside_magsac(data):
    known, unknown = stage_on(data).validate(), stage_on(hidden(data)).validate()
    assert known.score == known.scalars["median_corner_error_px"]
    assert known.scalars["magsac_median_corner_error_px"] > 0
    assert "median_corner_error_px" not in unknown.scalars
    assert unknown.score == unknown.scalars.get("median_rei_px", torch.inf)


@pytest.mark.slow
def test_the_model_file_beats_its_untrained_self_on_unseen_pairs(data, tmp_path, monkeypatch):
    stage = DheLiteStage(PatchExtractor(tolerance_cells=1.5), data, LONG, training_data="textures, CC0")
    found, truths = synthetic_pairs(1, 32)

    def median_error_px(model):
        query, candidates = views_of(found, REFERENCE)
        estimated = DheLiteEstimator.from_model(model).estimate(query, candidates)
        return float(mean_corner_error(in_reference(estimated.matrices), truths, corners(REFERENCE)).median())

    stage.model_file().save(tmp_path / "untrained.safetensors")
    learn(stage, known_pairs(0, count=96), 45, tmp_path / "run", monkeypatch)
    trained = load_model(tmp_path / "run" / "best.safetensors")
    untrained = load_model(tmp_path / "untrained.safetensors")
    assert median_error_px(trained) < 0.5 * median_error_px(untrained)
    assert trained.architecture.head == "dhe-lite"
    assert trained.training_data.endswith("; head: textures, CC0")
    assert trained.extractor_fingerprint == stage._base.extractor_fingerprint
    extractor = PatchExtractor(GRID, SIZE)
    extractor.model_file = trained
    further = DheLiteStage(extractor, data, LONG, training_data="more")
    assert torch.equal(further.head.logit.weight, stage.head.logit.weight)
    with torch.no_grad():
        further.head.logit.weight.zero_()
    assert trained.part("head")["logit.weight"].abs().max() > 0
    assert sum(value.numel() for value in further.head.parameters()) < 3_000_000
