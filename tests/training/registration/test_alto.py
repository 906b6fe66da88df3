"""The stage `alto`: which loss reaches which weights, and that it brings pairs together without labels."""

from dataclasses import replace

import pytest
import torch
from aligned_folder import write_aligned_pairs

from vpr_dhe.models.network_file import load_network
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.registration.aligned import open_aligned
from vpr_dhe.training.registration.alto import AltoSettings, AltoStage
from vpr_dhe.training.registration.deformed_patches import photo_side_px
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.cross_modal.alto import AltoEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings

SIDE = 32
SHAPE = RegistrationSettings(side_px=SIDE, width=8, iterations=2)
SMALL = AltoSettings("resnet10t")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    write_aligned_pairs(folder, 12)
    return open_aligned(folder, photo_side_px(SIDE))


def stage(data, steps=30, batch_size=8, method=SMALL):
    settings = RegistrationTraining(steps=steps, batch_size=batch_size, learning_rate=3e-3, validation_pairs=2)
    return AltoStage(SHAPE, data, settings, training_data="textures", method=method)


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_its_parts_are_all_that_it_trains(data):
    trained = stage(data, batch_size=4)
    parts = [parameter for part in trained.gradient_parts() for parameter in part.parameters()]
    assert len(parts) == len(set(parts))
    assert set(parts) == {parameter for group in trained.optimizer().param_groups for parameter in group["params"]}


def test_each_loss_reaches_its_own_weights_alone(data):
    trained = stage(data, batch_size=4).train()
    batch = trained.batches.batch(Turn(0, 0, 1))
    estimates = trained.network(batch.patches_a, batch.patches_b)
    trained.geometry_loss(batch, estimates).backward()
    by_geometry = gradients(trained)
    assert all((grad is not None) == name.startswith("network.") for name, grad in by_geometry.items())
    assert max(grad.abs().max() for grad in gradients(trained.network).values()) > 0
    trained.zero_grad()
    estimates = trained.network(batch.patches_a, batch.patches_b)
    trained.modality_loss(batch, estimates[-1].detach()).backward()
    by_modality = gradients(trained)
    assert all((grad is None) == name.startswith("network.") for name, grad in by_modality.items())
    expected = {name: by_geometry[name] if name.startswith("network.") else by_modality[name] for name in by_modality}
    whole = stage(data, batch_size=4).train()
    whole(batch).loss.backward()
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_the_registration_turn_leaves_batch_statistics_alone(data):
    trained = stage(data, batch_size=2).train()
    batch = trained.batches.batch(Turn(0, 0, 1))
    before = {name: value.clone() for name, value in trained.encoder.named_buffers()}
    trained.geometry_loss(batch, [batch.displacements])
    assert trained.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in trained.encoder.named_buffers())
    trained.modality_loss(batch, batch.displacements)
    assert any(not torch.equal(value, before[name]) for name, value in trained.encoder.named_buffers())


def test_without_alternation_both_losses_reach_all_weights(data):
    trained = stage(data, batch_size=4, method=replace(SMALL, alternation=False)).train()
    assert list(trained.gradient_parts()) == [trained]
    batch = trained.batches.batch(Turn(0, 0, 1))
    estimates = trained.network(batch.patches_a, batch.patches_b)
    trained.geometry_loss(batch, estimates).backward()
    assert all(gradient is not None for gradient in gradients(trained.encoder).values())
    trained.zero_grad()
    trained.modality_loss(batch, trained.network(batch.patches_a, batch.patches_b)[-1]).backward()
    assert max(gradient.abs().max() for gradient in gradients(trained.network).values() if gradient is not None) > 0


def test_without_pooling_the_modality_loss_tells_cells_apart(data):
    """Cells that change places within an image change its cells, and not its average."""
    pooled, unpooled = (stage(data, batch_size=4, method=replace(SMALL, pooling=flag)).eval() for flag in (True, False))
    batch = pooled.batches.batch(Turn(0, 0, 1))
    still = torch.zeros_like(batch.displacements)
    aligned = batch._replace(patches_a=batch.patches_b)
    shuffled = aligned._replace(patches_a=aligned.patches_a.roll(SIDE // 2, dims=3))
    rise = [float(one.modality_loss(shuffled, still) - one.modality_loss(aligned, still)) for one in (pooled, unpooled)]
    assert rise[1] > 2 * rise[0]


def test_labels_are_not_looked_at_and_folded_estimates_stay_finite(data):
    trained = stage(data, batch_size=4).eval()
    batch = trained.batches.batch(Turn(0, 0, 1))
    other = batch._replace(displacements=-batch.displacements)
    assert torch.equal(trained(batch).loss, trained(other).loss)
    folded = torch.full((4, 4, 2), 1.0).cumsum(dim=0) * 40
    folded[:, 1] = -folded[:, 1]
    folded = folded.requires_grad_()
    loss = trained.geometry_loss(batch, [folded]) + trained.modality_loss(batch, folded.detach())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(folded.grad).all()


@pytest.mark.slow
def test_eight_pairs_learn_to_fit_each_other(data, tmp_path, monkeypatch):
    """Both losses fall, and the same encoder sees registered pairs more alike than unregistered ones."""
    trained = stage(data)
    batch = trained.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(trained.batches), "batch", lambda self, turn: batch)
    with torch.no_grad():
        before = trained.eval()(batch).scalars
    train(trained, loop(30), tmp_path / "run")
    with torch.no_grad():
        after = trained.eval()(batch).scalars
        unregistered = trained.geometry_loss(batch, [torch.zeros_like(batch.displacements)])
        registered = trained.geometry_loss(batch, [trained.estimate(batch)])
    assert after["geometry"] < 0.9 * before["geometry"]
    assert after["modality"] < before["modality"]
    assert registered < unregistered


def test_a_run_in_two_parts_ends_with_the_same_weights(data, tmp_path):
    whole, first, second = (stage(data, steps=3, batch_size=2) for _ in range(3))
    train(whole, loop(3), tmp_path / "whole")
    train(first, loop(3, max_minutes=0.0), tmp_path / "parts")
    train(second, loop(3), tmp_path / "parts")
    states = [trained.state_dict() for trained in (whole, second)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_network_file_holds_the_registration_network_alone(data, tmp_path):
    trained = stage(data, steps=1, batch_size=2)
    result = train(trained, replace(loop(1), log_every=1), tmp_path / "run")
    file = load_network(result.best_model)
    assert file.method == "alto"
    estimator = AltoEstimator.from_file(file)
    assert set(file.tensors) == set(trained.network.state_dict())
    assert estimator.name == "alto"
