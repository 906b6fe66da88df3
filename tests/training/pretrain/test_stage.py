"""The stage that trains a network from nothing, on a network of a few thousand weights."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from small_network import small_extractor, small_model

from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Size
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.pretrain.stage import PretrainSettings, PretrainStage, views
from vpr_dhe.training.sources import TrainingData, open_training_data
from vpr_dhe.training.sources.base import PairSource, TrainingPair
from vpr_dhe.training.stage import Turn

SIDE = 64
SETTINGS = PretrainSettings(steps=200, warmup_steps=5, batch_size=8, learning_rate=1e-2, validation_pairs=4)


class Fixed(PairSource):
    """The same pairs each time."""

    knows_homographies, description = False, "two pairs"

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def pair(self, index, random):
        return self.pairs[index]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for number in range(12):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        coarse.resize((150, 140), PIL.Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return open_training_data([str(folder)], Size(SIDE, SIDE))


def stage(data, settings=SETTINGS):
    return PretrainStage(small_extractor(SIDE), small_model(SIDE), data, settings, training_data="generated textures")


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


def loss_of(trained, batch):
    with torch.no_grad():
        return float(trained(batch).loss)


def test_views_of_one_place_are_no_rivals():
    grey, rng = np.full((SIDE, SIDE, 3), 128, np.uint8), np.random.default_rng(4)
    other = rng.integers(0, 256, grey.shape, np.uint8)
    pairs = [TrainingPair(grey, grey, places=frozenset({place})) for place in ("front 1", "front 1", "front 2")]
    batch = views([*pairs[:2], TrainingPair(other, other, places=pairs[2].places)], small_model(SIDE).preprocessing)
    assert batch.same_place.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    source = Fixed([pairs[0], pairs[1]])
    validated = stage(TrainingData(source, source, source)).validate()
    assert validated.scalars["recall_at_1"] == 100  # both views are equally near to each other


@pytest.mark.slow
def test_eight_pairs_are_overfitted(data, tmp_path, monkeypatch):
    trained = stage(data)
    batch = trained.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(trained.batches), "batch", lambda self, turn: batch)
    before = loss_of(trained, batch)
    train(trained, loop(200), tmp_path / "run")
    after = loss_of(trained, batch)
    assert before > 5
    assert after < 0.3


def test_a_run_in_two_parts_ends_with_the_same_weights(data, tmp_path):
    settings = replace(SETTINGS, half_size_steps=3)
    whole, first, second = (stage(data, settings) for _ in range(3))
    train(whole, loop(6), tmp_path / "whole")
    train(first, loop(4), tmp_path / "parts")
    train(second, loop(6), tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_the_first_steps_are_made_at_half_the_size(data):
    batches = stage(data, settings=replace(SETTINGS, half_size_steps=2)).batches
    assert [batches.batch(Turn(step, 0, 1)).views_a.shape[-1] for step in range(4)] == [32, 32, 64, 64]


def test_at_half_the_size_points_correspond_as_well(data):
    half, whole = (
        stage(data, settings=replace(SETTINGS, half_size_steps=steps)).batches.batch(Turn(0, 0, 1)) for steps in (1, 0)
    )
    scale = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    centre = torch.tensor([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]], dtype=torch.float64)
    to_whole = centre @ scale @ torch.linalg.inv(centre)
    expected = to_whole @ half.homographies @ torch.linalg.inv(to_whole)
    assert torch.allclose(expected / expected[:, 2:, 2:], whole.homographies / whole.homographies[:, 2:, 2:], atol=1e-9)


@pytest.mark.slow
def test_pairs_of_towns_teach_vectors_but_no_cells():
    towns = open_training_data(["synthetic-town"], Size(SIDE, SIDE))
    assert not stage(towns).batches.batch(Turn(0, 0, 1)).known.any()


def test_the_learning_rate_rises_and_falls_to_nothing(data):
    trained = stage(data)
    rates = [trained.learning_rate_factor(step) for step in range(201)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4] == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 1e-6


def test_the_best_model_names_what_it_was_trained_on(data, tmp_path):
    result = train(stage(data), loop(2), tmp_path / "run")
    assert "generated textures" in load_model(result.best_model).training_data


def test_validation_says_how_many_views_and_cells_were_found(data):
    found = stage(data).validate()
    assert found.score > 0
    assert 0 <= found.scalars["cells_right"] <= 100
    assert 0 <= found.scalars["recall_at_1"] <= 100
