"""Joint training: REI reaches the backbone, and falls on images that were never learned from."""

import numpy as np
import PIL.Image
import pytest
import torch
from small_network import small_extractor, small_model
from torch import nn

from vpr_dhe.errors import ModelError
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.runtime.choices import Mining
from vpr_dhe.training.dhe.stage import first_head
from vpr_dhe.training.joint.stage import JointSettings, JointStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.mining import MiningSettings
from vpr_dhe.training.sources.triplets import open_triplet_data
from vpr_dhe.training.stage import Turn

SIDE = 384
SETTINGS = JointSettings(
    batch_size=4, learning_rate=1e-3, mining=MiningSettings(Mining.random, queries=8, negatives=1), min_inliers=16
)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """Every database image shows its query from 3 cells further left."""
    folder, rng = tmp_path_factory.mktemp("shifted"), np.random.default_rng(0)
    for part in ("database", "queries"):
        (folder / part).mkdir()
    for number in range(12):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (54, 60, 3), np.uint8))
        wide = np.array(coarse.resize((SIDE + 48, SIDE), PIL.Image.Resampling.BICUBIC))
        PIL.Image.fromarray(wide[:, 48:]).save(folder / "queries" / f"{number:02d}.png")
        PIL.Image.fromarray(wide[:, :SIDE]).save(folder / "database" / f"{number:02d}.png")
    return open_triplet_data(folder)


def small_stage(data, **settings):
    """Without its transformer, the head is linear in the correlation."""
    head = first_head(small_model(SIDE), seed=0)
    head.encoder, head.encoder2 = nn.Identity(), nn.Identity()
    chosen = JointSettings(**{**vars(SETTINGS), **settings})
    return JointStage(small_extractor(SIDE), small_model(SIDE), data, chosen, training_data="textures", head=head)


def held_out_rei(stage, data):
    pairs = [data.validation.pair(index, np.random.default_rng(0)) for index in range(len(data.validation))]
    images = [image for pair in pairs for image in (pair.image_a, pair.image_b)]
    with torch.no_grad():
        maps = stage.extractor(
            to_network_input(images, small_model(SIDE).preprocessing, torch.device("cpu"))
        ).local_maps
        return float(stage.rei(maps[::2], maps[1::2]))


@pytest.mark.slow
def test_it_moves_the_backbone_and_lowers_rei_on_a_held_out_batch(shifted, tmp_path):
    stage = small_stage(shifted)
    weights = {name: value.clone() for name, value in stage.extractor.named_parameters()}
    before = held_out_rei(stage, shifted)
    assert before == pytest.approx(48, abs=5)
    train(stage, LoopSettings(steps=16, validate_every=1000, save_every=1000, on_cpu=True), tmp_path / "run")
    assert held_out_rei(stage, shifted) < 0.4 * before
    assert all(not torch.equal(value, weights[name]) for name, value in stage.extractor.named_parameters())


def test_rei_alone_has_a_gradient_to_the_backbone(shifted):
    stage = small_stage(shifted)
    stage.begin_round(0)
    nn.init.normal_(stage.head.linear.weight, std=0.01)
    images = stage.batches.batch(Turn(0, 0, 1)).images
    maps = stage.extractor(images.flatten(0, 1)).local_maps.unflatten(0, images.shape[:2])
    stage.rei(maps[:, 0], maps[:, 1]).backward()
    assert all(value.grad.abs().max() > 0 for value in stage.extractor.backbone.parameters())


def test_the_loss_is_that_of_triplets_and_a_hundred_times_rei(shifted):
    stage = small_stage(shifted)
    stage.begin_round(0)
    with torch.no_grad():
        loss, scalars = stage(stage.batches.batch(Turn(0, 0, 1)))
    assert loss.item() == pytest.approx(float(scalars["triplet_loss"]) + 100 * float(scalars["rei_px"]))


@pytest.mark.slow
def test_it_overfits_eight_pairs(shifted, tmp_path, monkeypatch):
    stage = small_stage(shifted, batch_size=8)
    stage.begin_round(0)
    batch = stage.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(stage.batches), "batch", lambda self, turn: batch)
    monkeypatch.setattr(JointStage, "steps_per_round", lambda self, processes: None)
    with torch.no_grad():
        before = stage(batch)
    train(stage, LoopSettings(steps=16, validate_every=1000, save_every=1000, on_cpu=True), tmp_path / "run")
    with torch.no_grad():
        after = stage(batch)
    assert after.loss < 0.3 * before.loss


def test_the_model_file_has_the_head_and_the_new_weights(shifted):
    stage = small_stage(shifted)
    model = stage.model_file()
    assert model.architecture.head == "dhe"
    assert torch.equal(model.tensors["head.linear.weight"], stage.head.linear.weight)
    assert {name.split(".")[0] for name in model.tensors} == {"backbone", "head"}


def test_another_grid_is_refused(shifted):
    with pytest.raises(ModelError, match="12 x 12 cells; a DHE head needs 24 x 24"):
        JointStage(small_extractor(192), small_model(192), shifted, SETTINGS, training_data="textures")


def test_setting_up_a_training_changes_no_statistics(shifted):
    extractor = small_extractor(SIDE)
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    stage = JointStage(extractor, small_model(SIDE), shifted, SETTINGS, training_data="textures")
    assert all(torch.equal(value, before[name]) for name, value in stage.extractor.state_dict().items())
