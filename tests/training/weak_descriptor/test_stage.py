"""The stage `weak-descriptor`: patches follow homographies, are told apart, and interruptions change nothing."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.errors import DatasetError
from vpr_dhe.models.network_file import load_network
from vpr_dhe.records import Size
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.sources.base import PairSource, TrainingPair
from vpr_dhe.training.stage import Turn
from vpr_dhe.training.weak_descriptor.pair_sets import PairData
from vpr_dhe.training.weak_descriptor.stage import (
    PatchPairs,
    WeakDescriptorStage,
    WeakDescriptorStageSettings,
    patch_pairs,
)
from vpr_dhe.verification.estimators.cross_modal.weak_descriptor import WeakDescriptorEstimator

SIZE = Size(160, 120)
TRUTH = np.array([[0.96, -0.1, 12.0], [0.1, 0.96, -4.0], [0.0, 0.0, 1.0]])
SMALL = WeakDescriptorStageSettings(
    batch_size=16, pairs_per_round=2, patches_per_pair=24, epochs_per_round=2, validation_pairs=2, decay_steps=60
)


class Negatives(PairSource):
    """A texture, and the negative of it, warped."""

    knows_homographies = True
    description = "negatives"

    def __init__(self, first, count, homography=TRUTH):
        self.first, self.count, self.homography = first, count, homography

    def __len__(self):
        return self.count

    def pair(self, index, random):
        own = np.random.default_rng(self.first + index)
        parts = [
            cv2.resize(own.random((120 // cell, 160 // cell, 3)), SIZE, interpolation=cv2.INTER_CUBIC)
            for cell in (5, 10, 20)
        ]
        image = np.clip(255 * sum(parts) / 3, 0, 255).astype(np.uint8)
        warped = cv2.warpPerspective(image, TRUTH, SIZE, borderMode=cv2.BORDER_REFLECT)
        return TrainingPair(image, 255 - warped, self.homography)


class Named(Negatives):
    """The same with names of their places."""

    def pair(self, index, random):
        return replace(super().pair(index, random), places=frozenset([f"texture {self.first + index}"]))


DATA = PairData(Negatives(0, 6), Negatives(100, 2))


def stage_on(data=DATA, settings=SMALL):
    return WeakDescriptorStage(data, settings, training_data="textures, CC0")


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


def test_patches_of_a_pair_show_the_same():
    found = patch_pairs(DATA.training.pair(0, None), 3, 2, 24, np.random.default_rng(0))
    assert len(found.pairs) == 24
    assert (set(found.pairs.tolist()), set(found.shown.tolist())) == ({3}, {2})
    # Of an image and its negative, both of mean 0.
    flat = [patches.flatten(1) - patches.flatten(1).mean(dim=1, keepdim=True) for patches in (found.of_a, -found.of_b)]
    assert torch.cosine_similarity(*flat).median() > 0.9
    assert (found.places >= 0).all()
    assert (found.places < torch.tensor([160.0, 120.0])).all()


def test_without_a_homography_there_are_none():
    assert not len(patch_pairs(Negatives(0, 1, None).pair(0, None), 0, 0, 24, np.random.default_rng(0)).pairs)
    with pytest.raises(DatasetError, match="2 pairs share fewer than two keypoints"):
        stage_on(PairData(Negatives(0, 6, None), Negatives(100, 2))).begin_round(0)


def test_patches_are_apart_by_a_width_or_at_another_place():
    """The last pair may show the place of the first, but its patches lie elsewhere."""
    pairs, shown = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 0, 1, 0])
    places = torch.tensor([[0.0, 0.0], [5.0, 0.0], [20.0, 0.0], [0.0, 0.0], [90.0, 0.0]])
    none = torch.zeros(5, 3, 16, 16)
    apart = PatchPairs(none, none, pairs, shown, places, torch.full((5,), 10.0)).apart()
    assert apart.tolist() == [
        [False, False, True, True, False],
        [False, False, True, True, False],
        [True, True, False, True, False],
        [True, True, True, False, True],
        [False, False, False, True, False],
    ]


def test_a_pair_that_is_drawn_twice_in_a_round_is_no_negative_of_itself():
    stage = stage_on(PairData(Named(0, 2), Named(100, 2)), replace(SMALL, pairs_per_round=4))
    stage.begin_round(0)
    patches = stage.batches.patches
    first = {number: int(patches.shown[patches.pairs == number][0]) for number in range(4)}
    assert len(set(first.values())) == 2
    for one, other in itertools.combinations(range(4), 2):
        apart = patches.apart()[patches.pairs == one][:, patches.pairs == other]
        assert apart.all() == apart.any() == (first[one] != first[other])


@pytest.mark.slow
def test_it_learns_to_recognise_patches_of_unseen_negatives(tmp_path):
    settings = replace(SMALL, pairs_per_round=6, patches_per_pair=64, batch_size=64, decay_steps=500)
    stage = stage_on(settings=settings)
    assert stage.validate().scalars["recall_at_1"] < 10
    train(stage, loop(130), tmp_path / "run")
    assert stage.validate().scalars["recall_at_1"] > 50
    file = load_network(tmp_path / "run" / "best.safetensors")
    assert (file.method, file.training_data) == ("weak-descriptor", "textures, CC0")
    estimator = WeakDescriptorEstimator.from_file(file)
    assert torch.equal(estimator.network.first_a.weight, stage.network.first_a.weight)


@pytest.mark.parametrize("stops_at", [1, 6, 7])
def test_interrupted_it_gives_the_same_bits(tmp_path, stops_at):
    whole = stage_on()
    assert whole.steps_per_round(processes=1) == 6
    train(whole, loop(8, save_every=1), tmp_path / "whole")
    train(stage_on(), loop(stops_at, save_every=1), tmp_path / "run")
    continued = stage_on()
    train(continued, loop(8, save_every=1), tmp_path / "run")
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), continued.parameters(), strict=True))
    for name, value in whole.get_extra_state().items():
        assert torch.equal(value, continued.get_extra_state()[name]), name


def test_batches_depend_on_the_turn_alone():
    one, double = stage_on(), stage_on(settings=replace(SMALL, batch_size=32))
    one.begin_round(0)
    double.set_extra_state(one.get_extra_state())
    halves = [one.batches.batch(Turn(1, process, 2)) for process in range(2)]
    together = double.batches.batch(Turn(1, 0, 1))
    assert torch.equal(torch.cat([half.of_a for half in halves]), together.of_a)
    assert torch.isfinite(one(halves[0]).loss)


def test_a_pseudo_siamese_network_is_said_to_be_one():
    stage = stage_on(settings=replace(SMALL, pseudo_siamese=True))
    assert stage.model_file().settings == {"pseudo_siamese": 1}
    assert WeakDescriptorEstimator.from_file(stage.model_file()).network.first_b is not None
