"""The stage `ransac-flow`: it learns flows, known and unknown, and goes on where it stopped."""

import numpy as np
import pytest
import torch
from patches import write_textures

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.network_file import load_network
from vpr_dhe.records import Size
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.ransac_flow.coarse_crops import CropSettings
from vpr_dhe.training.ransac_flow.fine_alignment import Phase
from vpr_dhe.training.ransac_flow.stage import FineBatch, RansacFlowStage, RansacFlowTraining
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.ransac_flow import NAME
from vpr_dhe.verification.estimators.ransac_flow.network import FineNetwork, FineSettings

NETWORK = FineSettings(16, 16, 32, 64, 32, 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    write_textures(folder, 3)
    return open_training_data([str(folder)], Size(384, 384))


def a_stage(data, **changes):
    usual = {
        "warmup_steps": 1,
        "cycle_from": 2,
        "matchability_from": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "crops": CropSettings(image_px=160, crop_px=96, min_inliers=8),
        "network": NETWORK,
        "validation_pairs": 2,
    }
    return RansacFlowStage(
        load_extractor("sift-vlad"), data, RansacFlowTraining(**{**usual, **changes}), training_data="textures"
    )


def test_phases_follow_each_other(data):
    stage = a_stage(data)
    phases = [Phase(int(stage.batches.batch(Turn(step, 0, 1)).phase)) for step in range(4)]
    assert phases == [Phase.known_flow, Phase.reconstruction, Phase.cycle, Phase.matchability]


@pytest.mark.slow
def test_every_phase_reaches_what_it_is_about(data):
    stage = a_stage(data)
    for step in range(4):
        batch = stage.batches.batch(Turn(step, 0, 1))
        stage.zero_grad()
        loss = stage(batch).loss
        loss.backward()
        assert bool(torch.isfinite(loss))
        reached = {
            name for name, value in stage.network.named_parameters() if value.grad is not None and value.grad.any()
        }
        assert any(name.startswith("features.") for name in reached)
        assert any(name.startswith("flow_head.") for name in reached)
        assert any(name.startswith("matchability_head.") for name in reached) == (batch.phase == Phase.matchability)


def test_batches_without_an_aligned_pair_are_passed_over(data):
    stage = a_stage(data)
    batch = stage.batches.batch(Turn(0, 0, 1))
    empty = FineBatch(type(batch.crops)(*(part[:0] for part in batch.crops)), Phase.reconstruction)
    loss = stage(empty).loss
    loss.backward()
    assert float(loss) == 0


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.known_flow, Phase.cycle])
def test_learns_a_batch_by_heart(data, phase):
    stage = a_stage(data, batch_size=4)
    crops = stage.batches.batch(Turn(0, 0, 1)).crops
    optimizer = torch.optim.Adam(stage.network.parameters(), lr=2e-3)
    counted = crops.covered[:, 0] > 0

    def error():
        flow = stage.network(crops.source, crops.target)[0].flow_px
        return float(torch.linalg.vector_norm(flow - crops.flow_px, dim=1)[counted].mean())

    coarse = float(torch.linalg.vector_norm(crops.flow_px, dim=1)[counted].mean())
    for _ in range(150):
        optimizer.zero_grad()
        stage(FineBatch(crops, phase)).loss.backward()
        optimizer.step()
    assert error() < (0.35 if phase is Phase.known_flow else 0.8) * coarse


@pytest.mark.slow
def test_an_interrupted_run_ends_like_one_that_was_not(data, tmp_path):
    settings = {"seed": 0, "validate_every": 2, "save_every": 1, "log_every": 1, "on_cpu": True}
    whole, parts = a_stage(data), a_stage(data)
    train(whole, LoopSettings(steps=4, **settings), tmp_path / "whole")
    train(a_stage(data), LoopSettings(steps=2, **settings), tmp_path / "parts")
    result = train(parts, LoopSettings(steps=4, **settings), tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    file = load_network(result.best_model)
    assert (file.method, file.training_data) == (NAME, "textures")
    network = file.load_into(FineNetwork(file.settings_as(FineSettings)))
    assert network.settings == NETWORK


def test_validation_knows_how_far_the_coarse_stage_was_off(data):
    stage = a_stage(data)
    stage.eval()
    with torch.no_grad():
        found = stage.validate()
    assert found.score == found.scalars["loss"]
    assert 0 < found.scalars["matchability"] < 1
    assert found.scalars["coarse_end_point_error_px"] > 0
    assert np.isfinite(list(found.scalars.values())).all()
