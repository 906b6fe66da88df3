"""The stage of the DHE head, with a head small enough for a second, and once with the whole one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from patches import PatchExtractor, write_textures
from torch import nn
from torch.nn.functional import normalize

from vpr_dhe.datasets.augmentation import random_homography
from vpr_dhe.errors import ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import cell_centres, corners
from vpr_dhe.geometry.homography import four_point_homography, project
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Features, Frame, Grid
from vpr_dhe.training.dhe.stage import DheSettings, DheStage, HeadBatch, first_head
from vpr_dhe.training.extracted_pairs import ExtractedPairs
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.rei import inlier_matches
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.stage import Batches, Turn
from vpr_dhe.verification.estimators.base import match_by_grid
from vpr_dhe.verification.estimators.dhe import GRID, INPUT_SIZE, DheEstimator, DheHead


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine textures, of which one is held out."""
    folder = tmp_path_factory.mktemp("photos")
    write_textures(folder, 9)
    return folder


@pytest.fixture(scope="module")
def data(photos):
    return open_training_data([str(photos)], INPUT_SIZE)


class SameBatch(Batches):
    """One batch again and again."""

    def __init__(self, batch):
        self._batch = batch

    def batch(self, turn):
        return self._batch


@pytest.fixture(scope="module")
def eight_pairs():
    """Maps of random cells, of which B shows those of A where the homography takes them."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    centres = cell_centres(GRID, INPUT_SIZE)
    homographies = torch.stack([torch.from_numpy(random_homography(INPUT_SIZE, rng)) for _ in range(8)])
    queries, candidates = (normalize(torch.randn(8, 576, 64, generator=generator), dim=2) for _ in range(2))
    spec, frame, matches = PatchExtractor().spec, Frame(INPUT_SIZE, INPUT_SIZE), []
    for query, candidate, homography in zip(queries, candidates, homographies, strict=True):
        distance_px, cell = torch.cdist(project(torch.linalg.inv(homography), centres), centres).min(dim=1)
        candidate[distance_px < 12] = query[cell[distance_px < 12]]
        matches.append(match_by_grid(Features(torch.zeros(4), query, GRID, frame), candidate[None], spec)(0))
    known = torch.ones(8, dtype=torch.bool)
    return ExtractedPairs(queries, candidates, homographies, known, inlier_matches(matches, INPUT_SIZE))


def small_head():
    """Without its transformer, the head is linear in the correlation, and a thousand times faster."""
    head = first_head(open_model("sift-vlad"), seed=0)
    head.encoder, head.encoder2 = nn.Identity(), nn.Identity()
    return head


SETTINGS = DheSettings(batch_size=8, learning_rate=1e-3, validation_pairs=1, warmup_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize(("by_corners", "reached_px"), [(True, 5), (False, 8)])
def test_it_overfits_eight_pairs(data, eight_pairs, tmp_path, by_corners, reached_px):
    """REI ends above zero, because matches are those of whole cells of 16 px."""
    stage = DheStage(PatchExtractor(), data, SETTINGS, training_data="textures", head=small_head())
    batch = HeadBatch(eight_pairs, by_corners)
    stage.batches = SameBatch(batch)
    with torch.no_grad():
        assert stage(batch).loss > 35
    train(stage, LoopSettings(steps=40, validate_every=1000, save_every=1000, on_cpu=True), tmp_path / "run")
    with torch.no_grad():
        loss, scalars = stage(batch)
    assert loss < reached_px
    assert scalars["usable"] == 1


@pytest.mark.slow
def test_interrupted_and_continued_it_gives_the_same_bits(data, eight_pairs, tmp_path):
    def stage():
        made = DheStage(PatchExtractor(), data, SETTINGS, training_data="textures", head=small_head())
        made.batches = SameBatch(HeadBatch(eight_pairs, by_corners=True))
        return made

    settings = LoopSettings(steps=4, validate_every=2, save_every=1, on_cpu=True)
    whole, continued = stage(), stage()
    train(whole, settings, tmp_path / "whole")
    train(stage(), replace(settings, max_minutes=0.0), tmp_path / "run")
    result = train(continued, settings, tmp_path / "run")
    assert result.finished
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), continued.parameters(), strict=True))


def test_a_new_head_says_that_images_are_the_same():
    head = first_head(open_model("sift-vlad"), seed=1)
    maps = normalize(torch.randn(2, 576, 32, generator=torch.Generator().manual_seed(0)), dim=2)
    with torch.no_grad():
        points = head(maps[:1], maps[1:])
    homography = four_point_homography(points.query, points.candidate)
    square = corners(INPUT_SIZE)
    # Corners of the image lie half a pixel beyond the centres of its corner pixels.
    outer = square + torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    for side in points:
        assert (side[0] - outer).abs().max() < 5
    assert (homography[0] - torch.eye(3)).abs()[:2, :2].max() < 0.05
    again = first_head(open_model("sift-vlad"), seed=1)
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), again.parameters(), strict=True))


def test_batches_depend_on_the_turn_alone(data):
    settings = replace(SETTINGS, batch_size=2, warmup_steps=2)
    one, other = (DheStage(PatchExtractor(), data, settings, training_data="", head=small_head()) for _ in range(2))
    for step in range(3):
        one.batches.batch(Turn(step, 0, 1))
    for step, warming_up in ((1, True), (2, False), (3, False)):
        first, second = (stage.batches.batch(Turn(step, 0, 1)) for stage in (one, other))
        assert torch.equal(first.pairs.query_maps, second.pairs.query_maps)
        assert torch.equal(first.pairs.homographies, second.pairs.homographies)
        assert first.by_corners == warming_up
    # Two processes see, together, what one process with twice the batch sees.
    double = DheStage(PatchExtractor(), data, replace(settings, batch_size=4), training_data="", head=small_head())
    halves = [one.batches.batch(Turn(1, process, 2)).pairs.query_maps for process in range(2)]
    assert torch.equal(torch.cat(halves), double.batches.batch(Turn(1, 0, 1)).pairs.query_maps)


def test_another_grid_is_refused(data):
    with pytest.raises(ModelError, match="12 x 12 cells; a DHE head needs 24 x 24"):
        DheStage(PatchExtractor(Grid(12, 12)), data, SETTINGS, training_data="")


def test_gradients_reach_the_local_maps():
    """What joint training needs: the head's loss moves what made the maps."""
    head = small_head()
    torch.nn.init.normal_(head.linear.weight, std=0.01)
    maps = normalize(torch.randn(2, 576, 32, generator=torch.Generator().manual_seed(0)), dim=2).requires_grad_()
    points = head(maps[:1], maps[1:])
    four_point_homography(points.query, points.candidate).square().sum().backward()
    assert (maps.grad.abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.slow
def test_the_model_file_is_complete(data, tmp_path):
    """The whole head for a step: written, read, verified with, and trained further."""
    settings = replace(SETTINGS, batch_size=1)
    extractor = load_extractor("sift-vlad")
    stage = DheStage(extractor, data, settings, training_data="textures, CC0")
    result = train(stage, LoopSettings(steps=1, on_cpu=True), tmp_path / "run")
    model = load_model(result.best_model)
    assert model.architecture.head == "dhe"
    assert model.training_data.startswith(extractor.model_file.training_data)
    assert model.training_data.endswith("; head: textures, CC0")
    assert model.extractor_fingerprint == extractor.spec.fingerprint
    assert load_extractor(str(result.best_model)).spec.fingerprint == extractor.spec.fingerprint
    head = DheEstimator.from_model(model).head
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), stage.head.parameters(), strict=True))
    further = DheStage(load_extractor(str(result.best_model)), data, settings, training_data="more")
    assert torch.equal(further.head.linear.weight, stage.head.linear.weight)
    with torch.no_grad():
        further.head.linear.weight.zero_()
    assert further._base.part("head")["linear.weight"].abs().max() > 0
    assert isinstance(further.head, DheHead)
    assert json.loads((tmp_path / "run" / "training.json").read_text())["stage"] == "dhe"
