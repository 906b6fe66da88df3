"""The stage `alto`: which loss reaches which weights, and that it brings pairs together without labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from aligned_folder import write_aligned_pairs

from vpr_dhe.features.backbones.timm_cnn import TruncatedTimmCnn
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.network_file import load_network
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.registration.aligned import open_aligned
from vpr_dhe.training.registration.alto import AltoSettings, AltoStage
from vpr_dhe.training.registration.barlow_twins import REDUNDANCY_WEIGHT
from vpr_dhe.training.registration.deformed_patches import image_side_px
from vpr_dhe.training.registration.encoders import Encoder, build_loss_networks
from vpr_dhe.training.registration.registered_patches import bring_to_b
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.cross_modal.alto import AltoEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings

SIDE = 32
SHAPE = RegistrationSettings(side_px=SIDE, width=8, iterations=2)
SMALL = AltoSettings("resnet10t")


class Edges(Encoder):
    """Strength and direction of gradients in cells of 4 px: both contrasts of the test's pairs have the same."""

    def forward(self, images):
        # Scaled to variances far above the one that `barlow_twins` adds.
        grey = torch.nn.functional.pad(100 * images.mean(dim=1), (0, 1, 0, 1), mode="replicate")
        x, y = (grey.diff(dim=2)[:, :-1], grey.diff(dim=1)[:, :, :-1])
        strength = (x.square() + y.square() + 1e-2).sqrt()
        directions = [(x.square() - y.square()) / strength, 2 * x * y / strength]
        return torch.nn.functional.avg_pool2d(torch.stack([strength, *directions], dim=1), 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    write_aligned_pairs(folder, 12)
    return open_aligned(folder, image_side_px(SIDE))


def stage(data, steps=30, batch_size=8, method=SMALL):
    settings = RegistrationTraining(steps=steps, batch_size=batch_size, learning_rate=3e-3, validation_pairs=2)
    return AltoStage(SHAPE, data, settings, training_data="textures", method=method)


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def with_edges(data):
    """A stage with an encoder that works, and a batch."""
    trained = stage(data, batch_size=10)
    trained.encoder = Edges()
    return trained.eval(), trained.batches.batch(Turn(0, 0, 1))


def moved(batch, distance_px, seed=0):
    """Corners at a distance from the truth, in random directions."""
    angles = torch.from_numpy(np.random.default_rng(seed).uniform(0, 2 * np.pi, (len(batch.displacements), 4))).float()
    return batch.displacements + distance_px * torch.stack([angles.cos(), angles.sin()], dim=2)


def test_the_geometry_loss_is_that_of_the_positions_of_each_pair(data):
    """Written out in numpy: correlations over the cells of a pair that A covers, later estimates weighing more."""
    trained, batch = with_edges(data)
    estimates = [moved(batch, 4), moved(batch, 1, seed=1)]
    expected = 0.0
    for weight, estimate in zip((0.85, 1), estimates, strict=True):
        patches, shown = bring_to_b(batch.patches_a, estimate, trained.network.size)
        maps = [np.asarray(trained.encoder(images)) for images in (patches, batch.patches_b)]
        covered = np.asarray(shown).reshape(-1, SIDE // 4, 4, SIDE // 4, 4).all(axis=(2, 4))
        for map_a, map_b, cells in zip(*maps, covered, strict=True):
            channels = len(map_a)
            mixed = np.corrcoef(map_a[:, cells], map_b[:, cells])[:channels, channels:]
            identity = np.eye(channels)
            costs = np.where(identity, (mixed - 1) ** 2, REDUNDANCY_WEIGHT * mixed**2)
            expected += weight * costs.sum() / len(batch.displacements)
    assert trained.geometry_loss(batch, estimates).item() == pytest.approx(expected, rel=1e-3)


def test_the_geometry_loss_of_a_working_encoder_grows_with_the_distance_from_the_truth(data):
    trained, batch = with_edges(data)
    draws = range(4)
    losses = [
        np.mean([trained.geometry_loss(batch, [moved(batch, px, n)]).item() for n in draws]) for px in (0, 1, 2, 4)
    ]
    unrelated = batch.displacements.roll(1, dims=0)
    losses.append(trained.geometry_loss(batch, [unrelated]).item())
    assert losses == sorted(losses)
    assert losses[0] < 0.2 * losses[-1]


def test_the_gradient_of_the_geometry_loss_leads_to_the_truth(data):
    trained, batch = with_edges(data)
    corners = moved(batch, 2).requires_grad_()
    optimizer = torch.optim.Adam([corners], lr=0.2)
    for _ in range(30):
        optimizer.zero_grad()
        trained.geometry_loss(batch, [corners]).backward()
        optimizer.step()
    errors_px = (corners.detach() - batch.displacements).norm(dim=2).mean(dim=1)
    assert errors_px.median() < 0.8


def test_the_modality_loss_sees_no_outline_that_both_images_share(data):
    """Masked alike, unrelated images would be alike by their masks, and the encoder would learn these."""
    trained = stage(data, batch_size=4).eval()
    batch = trained.batches.batch(Turn(0, 0, 1))
    seen = []
    trained.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trained.modality_loss(batch, torch.full_like(batch.displacements, SIDE / 4))
    assert torch.equal(seen[0][4:], batch.patches_b)


def test_the_pretrained_encoder_is_the_beginning_of_the_default_model():
    encoder, projector = build_loss_networks("lite-vlad")
    images = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    model = open_model("lite-vlad")
    network = TruncatedTimmCnn("tf_efficientnet_lite0", 4).eval()
    network.load_state_dict(model.part("backbone"))
    with torch.no_grad():
        maps = encoder.eval()(images)
        projected = projector.eval()(maps)
        expected = network(2 * images - 1).patches
        torch.testing.assert_close(network.blocks[3](projected).flatten(2).mT, expected)
    assert maps.shape == (2, 24, 16, 8)
    assert projected.shape == (2, 40, 8, 4)


def test_files_name_the_pretrained_encoder(data):
    trained = stage(data, method=AltoSettings("lite-vlad"))
    assert trained.model_file().training_data == "textures; encoder of the losses started from: lite-vlad"


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
