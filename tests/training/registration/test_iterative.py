"""The stage `iterative` on networks of a few thousand weights."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from aligned_folder import write_aligned_pairs

from vpr_dhe.errors import ModelError
from vpr_dhe.models.network_file import load_network
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.registration.aligned import open_aligned
from vpr_dhe.training.registration.deformed_patches import deformed_patches, image_side_px
from vpr_dhe.training.registration.iterative import IterativeStage
from vpr_dhe.training.registration.sequence_loss import displacement_loss
from vpr_dhe.training.registration.stage import RegistrationTraining
from vpr_dhe.training.schedules import one_cycle
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeOptions
from vpr_dhe.verification.estimators.cross_modal.registration.networks import LAYOUTS, RegistrationSettings

SIDE = 32
SHAPE = RegistrationSettings(side_px=SIDE, width=8, iterations=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pairs"
    write_aligned_pairs(folder, 12)
    return open_aligned(folder, image_side_px(SIDE))


def stage(data, steps=60, *, labels=True, **settings):
    chosen = RegistrationTraining(steps=steps, batch_size=8, learning_rate=1e-2, validation_pairs=2, **settings)
    return IterativeStage(SHAPE, data, chosen, training_data="generated textures", labels=labels)


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


@pytest.mark.slow
def test_eight_pairs_are_overfitted(data, tmp_path, monkeypatch):
    trained = stage(data)
    batch = trained.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(trained.batches), "batch", lambda self, turn: batch)
    with torch.no_grad():
        before = trained(batch).scalars["last_l1_px"]
    train(trained, loop(60), tmp_path / "run")
    with torch.no_grad():
        after = trained(batch).scalars["last_l1_px"]
    assert before > 3
    assert after < 0.7


def test_a_run_in_two_parts_ends_with_the_same_weights(data, tmp_path):
    whole, first, second = (stage(data, steps=4) for _ in range(3))
    train(whole, loop(4), tmp_path / "whole")
    train(first, loop(4, max_minutes=0.0), tmp_path / "parts")
    train(second, loop(4), tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_the_network_file_is_complete(data, tmp_path):
    trained = stage(data, steps=1)
    result = train(trained, loop(1), tmp_path / "run")
    file = load_network(result.best_model)
    assert (file.method, file.training_data) == ("iterative", "generated textures")
    estimator = IterativeEstimator.from_file(file)
    assert all(
        torch.equal(one, other)
        for one, other in zip(trained.network.parameters(), estimator.network.parameters(), strict=True)
    )
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (facts["stage"], facts["data"], facts["width"]) == ("iterative", "10 pairs of pairs", 8)


@pytest.mark.slow
def test_without_labels_pixels_that_look_alike_are_brought_together(data, monkeypatch, tmp_path):
    """The displacements of the batch are not looked at, and A lands where B shows the same."""
    trained = stage(data, labels=False)
    batch = trained.batches.batch(Turn(0, 0, 1))
    batch = batch._replace(patches_a=deformed_patches(batch.images_b, batch.displacements))
    assert torch.equal(trained(batch).loss, trained(batch._replace(displacements=-batch.displacements)).loss)
    monkeypatch.setattr(type(trained.batches), "batch", lambda self, turn: batch)
    with torch.no_grad():
        before = trained(batch).loss
    train(trained, loop(60), tmp_path / "run")
    with torch.no_grad():
        assert trained(batch).loss < 0.7 * before


def test_a_run_starts_from_a_network_of_the_same_shape(data):
    taught, started = stage(data), stage(data, seed=5)
    weights = [one.clone() for one in taught.network.parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(weights, started.network.parameters(), strict=True))
    started.start_from(taught.model_file())
    assert all(torch.equal(a, b) for a, b in zip(weights, started.network.parameters(), strict=True))
    assert started.facts["start"] != stage(data).facts.get("start")
    assert started.model_file().training_data == "generated textures; started from: generated textures"
    other = IterativeStage(replace(SHAPE, width=16), data, taught.settings, training_data="textures")
    with pytest.raises(ModelError, match=r"'width': 16.*expected.*'width': 8"):
        started.start_from(other.model_file())


def test_runs_and_files_of_earlier_versions_go_on(data):
    """Their facts and settings know no options; those that differ from the earlier network are facts."""
    earlier, taught = stage(data), stage(data, seed=3)
    options = set(asdict(IterativeOptions()))
    assert not options & earlier.facts.keys()
    shape = RegistrationSettings(side_px=SIDE, width=8, iterations=2, **asdict(LAYOUTS["alto"]))
    published = IterativeStage(shape, data, earlier.settings, training_data="textures")
    assert published.facts["relu_in_residual"] is False
    file = taught.model_file()
    without = replace(file, settings={name: one for name, one in file.settings.items() if name not in options})
    earlier.start_from(without)
    assert all(
        torch.equal(a, b) for a, b in zip(taught.network.parameters(), earlier.network.parameters(), strict=True)
    )
    with pytest.raises(ModelError, match=r"has .*'relu_in_residual': True.*expected .*'relu_in_residual': False"):
        published.start_from(without)


def test_the_last_of_a_sequence_counts_in_full():
    truth = torch.zeros(2, 4, 2)
    estimates = [truth + value for value in (4.0, -2.0, 1.0)]
    assert displacement_loss(estimates, truth, 0.5) == pytest.approx(4 * 0.25 + 2 * 0.5 + 1)


def test_one_cycle_rises_over_a_twentieth_and_falls_to_nothing():
    rates = [one_cycle(step, 100) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[52] == pytest.approx(48 / 95)
    assert rates[100] == 0.0
    assert one_cycle(0, 1) == 1.0
