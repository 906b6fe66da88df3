"""The stages `sshnet` and `sshnet-d`: which loss reaches which network, and that both learn."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from aligned_folder import write_aligned_pairs

from vpr_dhe.errors import ModelError
from vpr_dhe.models.network_file import load_network
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.registration.aligned import open_aligned
from vpr_dhe.training.registration.deformed_patches import image_side_px
from vpr_dhe.training.registration.iterative import IterativeStage
from vpr_dhe.training.registration.sshnet import SshnetStage
from vpr_dhe.training.registration.sshnet_d import DistilledSshnetStage
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings
from vpr_dhe.verification.estimators.cross_modal.sshnet import DistilledSshnetEstimator, SshnetEstimator, SshnetSettings

SIDE = 32
SHAPE = RegistrationSettings(side_px=SIDE, width=8, iterations=2)
BOTH = SshnetSettings(**asdict(SHAPE), transfer="convolutional", transfer_width=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    write_aligned_pairs(folder, 12)
    return open_aligned(folder, image_side_px(SIDE))


def settings(steps, batch_size=4):
    return RegistrationTraining(steps=steps, batch_size=batch_size, learning_rate=1e-2, decay=0.8, validation_pairs=2)


def stage(data, steps=40, batch_size=4, shape=BOTH, *, split=True):
    return SshnetStage(shape, data, settings(steps, batch_size), training_data="textures", split=split)


def loop(steps, **given):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **given})


def reached(module):
    return {name.split(".")[0] for name, parameter in module.named_parameters() if parameter.grad is not None}


def test_its_parts_are_all_that_it_trains(data):
    trained = stage(data, batch_size=4)
    parts = [parameter for part in trained.gradient_parts() for parameter in part.parameters()]
    assert len(parts) == len(set(parts))
    assert set(parts) == {parameter for group in trained.optimizer().param_groups for parameter in group["params"]}


def test_each_loss_reaches_its_own_network_alone(data):
    trained = stage(data).train()
    batch = trained.batches.batch(Turn(0, 0, 1))
    trained.registration_loss(batch).backward()
    assert reached(trained.network) == {"registration"}
    trained.zero_grad()
    losses = trained.transfer_losses(trained.network.transfer(batch.patches_a), batch)
    sum(losses).backward()
    assert reached(trained.network) == {"transfer"}
    assert all(parameter.requires_grad for parameter in trained.parameters())
    trained.zero_grad()
    trained(batch).loss.backward()
    assert reached(trained.network) == {"transfer", "registration"}


def test_together_each_loss_reaches_both_networks(data):
    trained = stage(data, split=False).train()
    assert list(trained.gradient_parts()) == [trained]
    batch = trained.batches.batch(Turn(0, 0, 1))
    trained.registration_loss(batch).backward()
    assert reached(trained.network) == {"transfer", "registration"}
    trained.zero_grad()
    sum(trained.transfer_losses(trained.network.transfer(batch.patches_a), batch)).backward()
    assert reached(trained.network) == {"transfer", "registration"}


def test_it_starts_from_a_network_that_registers_alone(data):
    trained, other = stage(data), IterativeStage(SHAPE, data, settings(1), training_data="photos")
    trained.start_from(other.model_file())
    started = trained.network.registration.state_dict()
    assert all(torch.equal(value, started[name]) for name, value in other.network.state_dict().items())


def test_in_half_precision_neither_loss_reaches_further(data):
    """Casts of weights are kept for a step, and might carry gradients along."""
    found = []
    for whole in (True, False):
        trained = stage(data).train()
        batch = trained.batches.batch(Turn(0, 0, 1))
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            loss = trained(batch).loss if whole else trained.registration_loss(batch)
        loss.backward()
        found.append([parameter.grad for parameter in trained.network.registration.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_labels_are_not_looked_at(data):
    trained = stage(data).eval()
    batch = trained.batches.batch(Turn(0, 0, 1))
    losses = []
    for displacements in (batch.displacements, -batch.displacements):
        torch.manual_seed(0)
        losses.append(trained(batch._replace(displacements=displacements)).loss)
    assert torch.equal(*losses)


@pytest.mark.slow
def test_both_networks_learn_from_a_few_pairs(data, tmp_path, monkeypatch):
    trained = stage(data)
    batch = trained.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(trained.batches), "batch", lambda self, turn: batch)
    drawn = batch.displacements.flip(0)
    monkeypatch.setattr("vpr_dhe.training.registration.sshnet.random_displacements", lambda *_: drawn)
    scalars = []
    for steps in (0, 40):
        if steps:
            train(trained, loop(steps), tmp_path / "run")
        with torch.no_grad():
            scalars.append(trained.eval()(batch).scalars)
    before, after = scalars
    assert after["registration"] < 0.8 * before["registration"]
    assert after["perceptual"] < 0.97 * before["perceptual"]


def test_a_run_in_two_parts_ends_with_the_same_weights(data, tmp_path):
    whole, first, second = (stage(data, steps=3, batch_size=2) for _ in range(3))
    train(whole, loop(3), tmp_path / "whole")
    train(first, loop(3, max_minutes=0.0), tmp_path / "parts")
    train(second, loop(3), tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.slow
def test_a_teacher_is_imitated_and_named(data, tmp_path, monkeypatch):
    taught = train(stage(data, steps=1, batch_size=2), loop(1), tmp_path / "teacher")
    teacher = load_network(taught.best_model)
    assert teacher.settings["perceptual"] == "features of the registration network, and gradients"
    network = SshnetEstimator.from_file(teacher).network
    with torch.no_grad():
        # A teacher that has something to say, before it has learned anything.
        teacher.tensors["registration.updates.0.layers.11.bias"].fill_(3.0)
    student = DistilledSshnetStage(SHAPE, data, settings(40), training_data="textures", teacher=teacher)
    batch = student.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(student.batches), "batch", lambda self, turn: batch)
    with torch.no_grad():
        before = student(batch).scalars["last_l1_to_teacher_px"]
    result = train(student, loop(40), tmp_path / "student")
    with torch.no_grad():
        after = student(batch).scalars["last_l1_to_teacher_px"]
    assert before > 4
    assert after < 1.5
    file = load_network(result.best_model)
    assert (file.method, file.training_data) == ("sshnet-d", "textures; teacher: textures")
    assert set(file.tensors) == {name for name, _ in student.network.named_parameters()}
    assert DistilledSshnetEstimator.from_file(file).network.size == network.size
    facts = json.loads((tmp_path / "student" / "training.json").read_text())
    assert len(facts["teacher"]) == 64


def test_other_teachers_are_refused(data, tmp_path):
    taught = train(stage(data, steps=1, batch_size=2), loop(1), tmp_path / "teacher")
    teacher = load_network(taught.best_model)

    def student(teacher, shape=SHAPE):
        return DistilledSshnetStage(shape, data, settings(1), training_data="", teacher=teacher)

    with pytest.raises(ModelError, match="the teacher is a network of iterative; give one of sshnet"):
        student(replace(teacher, method="iterative"))
    with pytest.raises(ModelError, match="teacher have 32 px, those of the student 64"):
        student(teacher, replace(SHAPE, side_px=64))


@pytest.mark.parametrize("transfer", ["swin", "swin-shuffle", "convolutional"])
def test_every_weight_of_both_networks_gets_a_gradient(data, transfer):
    trained = stage(data, batch_size=2, shape=replace(BOTH, transfer=transfer)).train()
    trained(trained.batches.batch(Turn(0, 0, 1))).loss.backward()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
