"""Time limits and Ctrl-C in the preparation of stages: what is kept, what is said, and that the run can go on."""

import csv
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from aligned_folder import write_aligned_pairs
from patches import PatchExtractor, write_textures
from small_network import small_extractor, small_model
from small_stage import LineStage
from ticking import Ticks, stopping_after

from vpr_dhe.errors import TimeLimitError
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Grid, Size
from vpr_dhe.runtime.choices import Mining
from vpr_dhe.training.deadline import Deadline
from vpr_dhe.training.descriptor.stage import DescriptorSettings, TripletStage
from vpr_dhe.training.dhe.stage import DheSettings, DheStage
from vpr_dhe.training.dhe_lite import DheLiteSettings, DheLiteStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.mining import MiningSettings
from vpr_dhe.training.preparation import Preparation
from vpr_dhe.training.pretrain.stage import PretrainSettings, PretrainStage
from vpr_dhe.training.ransac_flow.coarse_crops import CropSettings
from vpr_dhe.training.ransac_flow.stage import RansacFlowStage, RansacFlowTraining
from vpr_dhe.training.registration.aligned import open_aligned
from vpr_dhe.training.registration.deformed_patches import image_side_px
from vpr_dhe.training.registration.iterative import IterativeStage
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.training.run_folder import saved_step
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.sources.triplets import open_triplet_data
from vpr_dhe.training.weak_descriptor.pair_sets import open_pair_data
from vpr_dhe.training.weak_descriptor.stage import WeakDescriptorStage, WeakDescriptorStageSettings
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings

SIZE = Size(256, 192)
SETTINGS = LoopSettings(steps=12, validate_every=3, save_every=100, log_every=1, on_cpu=True)


def test_a_limit_is_over_once_its_minutes_have_passed():
    deadline = Deadline(2.0, clock=Ticks())
    assert [deadline.is_over for _ in range(3)] == [False, True, True]
    assert not Deadline(None, clock=Ticks()).is_over
    assert Deadline(0.0, clock=Ticks()).is_over


def test_a_part_is_ended_unless_it_is_done():
    seen = []
    preparation = stopping_after(2, lambda items, total: seen.append((items, total)) or seen.append)
    advance = preparation.begin("pairs", 5)
    advance(1)
    with pytest.raises(TimeLimitError, match="the time limit of 2 min ended at 3 of 5 pairs"):
        advance(2)
    assert seen == [("pairs", 5), 1, 2]
    preparation.begin("others", 1)(1)


class RoundStage(LineStage):
    """The line in rounds of four steps, each of three items to prepare, as are those of the validation."""

    broken_after = None

    def __init__(self):
        super().__init__()
        self.rounds = 0

    def steps_per_round(self, processes):
        return 4

    def begin_round(self, step):
        self._prepare("items of the round")
        self.rounds += 1

    def validate(self):
        self._prepare("held-out items")
        return super().validate()

    def _prepare(self, items):
        advance = self.preparation.begin(items, 3)
        for _ in range(3):
            if self.broken_after is not None:
                self.broken_after -= 1
                if self.broken_after < 0:
                    raise KeyboardInterrupt
            advance(1)

    def get_extra_state(self):
        return self.rounds

    def set_extra_state(self, state):
        self.rounds = state


def result_of(folder):
    """Everything that a run ends with, besides which scalars of steps were averaged."""
    state = torch.load(folder / "state.pt", weights_only=True)
    with (folder / "log.csv").open(newline="") as file:
        log = [tuple(row.values()) for row in csv.DictReader(file)]
    return state["step"], state["best_score"], log, load_model(folder / "best.safetensors").tensors, state["weights"]


def same_result(one, other):
    tensors = [{name: value for name, value in part.items() if isinstance(value, torch.Tensor)} for part in one[3:]]
    pairs = ((value, part[name]) for ours, part in zip(tensors, other[3:], strict=True) for name, value in ours.items())
    return one[:3] == other[:3] and all(torch.equal(*pair) for pair in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(RoundStage(), SETTINGS, folder)
    return result_of(folder)


def test_before_the_first_step_nothing_is_kept_and_said_so(tmp_path, whole):
    with pytest.raises(TimeLimitError) as error:
        train(RoundStage(), SETTINGS, tmp_path / "run", preparation=stopping_after(2))
    assert str(error.value) == (
        f"the time limit of 2 min ended at 2 of 3 items of the round, before the first step of this run: "
        f"{tmp_path / 'run'} holds nothing trained yet; run the command again with a longer --max-minutes, or with "
        "less to prepare"
    )
    assert error.value.exit_code == 1
    assert saved_step(tmp_path / "run") is None
    train(RoundStage(), SETTINGS, tmp_path / "run")
    assert same_result(result_of(tmp_path / "run"), whole)


@pytest.mark.parametrize("minutes", [3, 4, 5, 6, 8, 13])
def test_whenever_the_time_is_up_the_run_goes_on_to_the_same_end(tmp_path, whole, minutes):
    reached, finished = [0], False
    while not finished:
        result = train(RoundStage(), SETTINGS, tmp_path / "run", preparation=stopping_after(minutes))
        assert saved_step(tmp_path / "run") == result.step >= reached[-1]
        reached.append(result.step)
        finished = result.finished
    assert len(reached) > 2
    assert same_result(result_of(tmp_path / "run"), whole)


def test_a_limit_too_short_for_a_validation_says_what_is_kept(tmp_path, whole):
    assert not train(RoundStage(), SETTINGS, tmp_path / "run", preparation=stopping_after(6)).finished
    with pytest.raises(TimeLimitError, match=r"at 1 of 3 held-out items, .* holds the state after step 3; run the"):
        train(RoundStage(), SETTINGS, tmp_path / "run", preparation=stopping_after(1))
    train(RoundStage(), SETTINGS, tmp_path / "run")
    assert same_result(result_of(tmp_path / "run"), whole)


@pytest.mark.parametrize("broken_after", range(1, 20))
def test_ctrl_c_in_the_preparation_loses_no_step(tmp_path, whole, broken_after):
    stage, done = RoundStage(), []
    stage.broken_after = broken_after
    with pytest.raises(KeyboardInterrupt):
        train(stage, SETTINGS, tmp_path / "run", progress=done.append)
    # A step is reported after its validation.
    assert (saved_step(tmp_path / "run") or 0) - sum(done) in {0, 1}
    train(RoundStage(), SETTINGS, tmp_path / "run")
    assert same_result(result_of(tmp_path / "run"), whole)


def test_without_a_limit_each_part_is_reported(tmp_path):
    seen = []
    preparation = Preparation(start_progress=lambda items, total: seen.append((items, total)) or (lambda _: None))
    train(RoundStage(), replace(SETTINGS, steps=4, validate_every=4), tmp_path / "run", preparation=preparation)
    assert seen == [("items of the round", 3), ("held-out items", 3)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_textures(folder, 30)
    return open_training_data([str(folder)], SIZE)


def dhe_lite(photos):
    settings = DheLiteSettings(pairs_per_round=4, batch_size=2, epochs_per_round=1, validation_pairs=3)
    return DheLiteStage(PatchExtractor(Grid(12, 16), SIZE, 1.5), photos, settings, training_data="textures")


def dhe(photos):
    extractor = PatchExtractor(Grid(24, 24), Size(384, 384), 1.5)
    return DheStage(extractor, photos, DheSettings(validation_pairs=3, batch_size=2), training_data="textures")


def pretrain(photos):
    settings = PretrainSettings(validation_pairs=3, batch_size=2)
    return PretrainStage(small_extractor(64), small_model(64), photos, settings, training_data="textures")


def ransac_flow(photos):
    settings = RansacFlowTraining(validation_pairs=3, batch_size=2, crops=CropSettings(image_px=96, crop_px=64))
    return RansacFlowStage(PatchExtractor(Grid(12, 16), SIZE, 1.5), photos, settings, training_data="textures")


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """Places 100 m apart, each with one query 5 m away."""
    folder, rng = tmp_path_factory.mktemp("places"), np.random.default_rng(4)
    for part, shift_m in (("database", 0), ("queries", 5)):
        (folder / "images/train" / part).mkdir(parents=True)
        for number in range(30):
            name = f"@{500_000 + 100 * number + shift_m}@5000000@31@U@.png"
            image = PIL.Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
            image.save(folder / "images/train" / part / name)
    return open_triplet_data(folder)


def descriptor(triplets):
    mining = MiningSettings(Mining.partial, queries=8, negatives=3, sampled_images=20)
    settings = DescriptorSettings(batch_size=2, mining=mining, validation_pairs=3)
    return TripletStage(small_extractor(64), small_model(64), triplets, settings, training_data="textures")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    write_aligned_pairs(folder, 30)
    return folder


def weak_descriptor(pairs):
    settings = WeakDescriptorStageSettings(pairs_per_round=4, patches_per_pair=8, validation_pairs=3)
    return WeakDescriptorStage(open_pair_data([str(pairs)], SIZE), settings, training_data="textures")


def iterative(pairs):
    settings = RegistrationTraining(steps=2, batch_size=1, validation_pairs=3)
    shape = RegistrationSettings(side_px=32, width=8, iterations=1)
    return IterativeStage(shape, open_aligned(pairs, image_side_px(32)), settings, training_data="textures")


STAGES = [
    *((build, "photos") for build in (dhe_lite, dhe, pretrain, ransac_flow)),
    (descriptor, "triplets"),
    *((build, "pairs") for build in (weak_descriptor, iterative)),
]


@pytest.mark.parametrize(("build", "data"), STAGES)
def test_the_held_out_data_of_each_stage_count(build, data, request):
    stage = build(request.getfixturevalue(data)).eval()
    stage.preparation = stopping_after(1)
    with torch.no_grad():
        with pytest.raises(TimeLimitError, match="ended at 1 of 3 held-out pairs"):
            stage.validate()
        stage.preparation = Preparation()
        assert stage.validate()


@pytest.mark.parametrize(
    ("build", "data", "said"),
    [
        (dhe_lite, "photos", "at 1 of 4 pairs of the next round"),
        (descriptor, "triplets", "at 16 of [0-9]+ images to mine"),
        (weak_descriptor, "pairs", "at 1 of 4 pairs of the next round"),
    ],
)
def test_the_rounds_of_each_stage_count_and_are_left_as_they_were(build, data, said, request, tmp_path):
    stage = build(request.getfixturevalue(data)).eval()
    with pytest.raises(TimeLimitError, match=said):
        train(stage, SETTINGS, tmp_path / "run", preparation=stopping_after(1))
    fresh = build(request.getfixturevalue(data))
    assert str(stage.get_extra_state()) == str(fresh.get_extra_state())
