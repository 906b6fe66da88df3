"""The stages that train a descriptor, on a network of a few thousand weights."""

import re
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from little_gsv_cities import write_gsv_cities
from small_network import small_extractor, small_model

from vpr_dhe.datasets import Protocol
from vpr_dhe.errors import DatasetError, ModelError
from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.backbones.cct import build_cct
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.model_file import Architecture, ModelFile, load_model
from vpr_dhe.records import Grid, Preprocessing, Size
from vpr_dhe.runtime.choices import Mining
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.training.descriptor.stage import DescriptorSettings, MultiSimilarityStage, PairBatch, TripletStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.mining import MiningSettings
from vpr_dhe.training.sources import TrainingData, open_training_data
from vpr_dhe.training.sources.base import TrainingPair
from vpr_dhe.training.sources.triplets import open_triplet_data
from vpr_dhe.training.stage import Turn
from vpr_dhe.training.trainable_extractor import TrainableExtractor, new_model

SIDE = 64


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for number in range(9):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8))
        coarse.resize((90, 90), PIL.Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:40]
    write_town(folder, town, database, town.query_cameras(12, 1, database))
    return open_triplet_data(folder, Protocol(split="test"))


def triplet_stage(town, **settings):
    mining = MiningSettings(Mining.partial, queries=8, negatives=3, sampled_images=20)
    chosen = DescriptorSettings(**{"batch_size": 2, "learning_rate": 1e-3, "mining": mining, **settings})
    return TripletStage(small_extractor(SIDE), small_model(SIDE), town, chosen, training_data="a town")


def loop(steps, **settings):
    return LoopSettings(**{"steps": steps, "validate_every": 1000, "save_every": 1000, "on_cpu": True, **settings})


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def overfit(stage, folder, steps, monkeypatch):
    batch = stage.batches.batch(Turn(0, 0, 1))
    monkeypatch.setattr(type(stage.batches), "batch", lambda self, turn: batch)
    with torch.no_grad():
        before = float(stage(batch).loss)
    train(stage, loop(steps), folder)
    with torch.no_grad():
        return before, float(stage(batch).loss)


def test_multi_similarity_overfits_eight_pairs(photos, tmp_path, monkeypatch):
    data = open_training_data([str(photos)], Size(SIDE, SIDE))
    settings = DescriptorSettings(batch_size=8, learning_rate=3e-3)
    stage = MultiSimilarityStage(small_extractor(SIDE), small_model(SIDE), data, settings, training_data="textures")
    before, after = overfit(stage, tmp_path / "run", 80, monkeypatch)
    assert after < 0.5 * before


def test_pairs_of_one_place_are_no_negatives_of_each_other(photos):
    data = open_training_data([str(photos)], Size(SIDE, SIDE))
    settings = DescriptorSettings(batch_size=4)
    stage = MultiSimilarityStage(small_extractor(SIDE), small_model(SIDE), data, settings, training_data="textures")
    batch = stage.batches.batch(Turn(0, 0, 1))
    assert torch.equal(batch.same_place, torch.eye(4, dtype=torch.bool))
    # Each pair once more: what looks the same is the hardest negative there is.
    twice = torch.cat([batch.images, batch.images])
    apart, together = torch.eye(8, dtype=torch.bool), torch.eye(4, dtype=torch.bool).repeat(2, 2)
    with torch.no_grad():
        as_negatives, as_one_place = (stage(PairBatch(twice, same)) for same in (apart, together))
        nowhere_apart = stage(PairBatch(twice, torch.ones(8, 8, dtype=torch.bool)))
        vectors = stage.extractor(twice.flatten(0, 1)).vectors.unflatten(0, (8, 2)).double()
    assert as_one_place.loss < as_negatives.loss - 0.1
    assert as_one_place.scalars["mined"] == as_negatives.scalars["mined"] - 8 * 2 * 2
    # Without any negative, each image costs log(1 + exp(-s)) for its similarity s to the other of its pair.
    similarity = torch.nn.functional.cosine_similarity(vectors[:, 0], vectors[:, 1])
    assert nowhere_apart.loss.item() == pytest.approx(similarity.neg().exp().log1p().mean().item(), rel=1e-4)


def test_batches_of_gsv_cities_are_places_by_images(tmp_path):
    root = write_gsv_cities(tmp_path / "gsv-cities")
    data = open_training_data([str(root)], Size(SIDE, SIDE), images_per_place=3)
    settings = DescriptorSettings(batch_size=5, learning_rate=1e-3)
    stage = MultiSimilarityStage(
        small_extractor(SIDE), small_model(SIDE), data, settings, training_data="", random_light=False
    )
    assert stage.facts["data"] == "gsv-cities: 8 places of 30 photos, 3 at a time"
    assert stage.facts["images_per_place"] == 3
    batch = stage.batches.batch(Turn(0, 0, 1))
    assert batch.images.shape == (5, 3, 3, SIDE, SIDE)
    assert torch.equal(batch.same_place, torch.eye(5, dtype=torch.bool))
    # The photos of a place differ from each other, but by less than from those of other places.
    colours = batch.images.mean(dim=(3, 4))
    within = (colours - colours.mean(dim=1, keepdim=True)).norm(dim=2).max()
    assert 0 < within < torch.pdist(colours.mean(dim=1)).min()
    assert not torch.equal(stage.batches.batch(Turn(1, 0, 1)).images, batch.images)
    train(stage, loop(2), tmp_path / "run")
    assert np.isfinite(stage.validate().score)


def test_gsv_cities_has_no_triplets(tmp_path):
    with pytest.raises(DatasetError, match="no queries for triplets; use --loss multi-similarity"):
        open_triplet_data(write_gsv_cities(tmp_path / "gsv-cities", side=4))


def test_photographs_are_lit_anew_and_warps_are_not(photos, town):
    size, settings = Size(SIDE, SIDE), DescriptorSettings(batch_size=2)
    places = TrainingData(town.validation, town.validation, town.validation)
    warps = open_training_data([str(photos)], size)

    def stage(data, **light):
        return MultiSimilarityStage(small_extractor(SIDE), small_model(SIDE), data, settings, training_data="", **light)

    for data, relit in ((places, True), (warps, False)):
        lit, plain = stage(data), stage(data, random_light=False)
        assert (lit.facts["data"] != plain.facts["data"]) == relit
        images = [made.batches.batch(Turn(0, 0, 1)).images for made in (lit, plain)]
        assert images[0].shape == images[1].shape
        assert torch.equal(*images) != relit
        assert lit.validate() == plain.validate()


def test_triplets_overfit_eight(town, tmp_path, monkeypatch):
    stage = triplet_stage(town, batch_size=8, learning_rate=3e-3)
    with torch.no_grad():
        stage.begin_round(0)
    # One round for ever: with eight triplets in a batch, every step would mine anew.
    monkeypatch.setattr(TripletStage, "steps_per_round", lambda self, processes: None)
    before, after = overfit(stage, tmp_path / "run", 80, monkeypatch)
    assert before > 0.02
    assert after < 0.2 * before


def test_the_triplet_loss_is_that_of_plain_loops(town):
    stage = triplet_stage(town)
    with torch.no_grad():
        stage.begin_round(0)
        batch = stage.batches.batch(Turn(0, 0, 1))
        vectors = stage.extractor(batch.images.flatten(0, 1)).vectors
        assert stage(batch).loss.item() == pytest.approx(plain_loss(vectors.unflatten(0, (2, 5)).tolist()), rel=1e-3)


def plain_loss(groups):
    losses = []
    for query, positive, *negatives in groups:
        to_positive = np.linalg.norm(np.subtract(query, positive))
        losses += [max(0.0, 0.1 + to_positive - np.linalg.norm(np.subtract(query, far))) for far in negatives]
    return np.mean(losses)


@pytest.mark.slow
@pytest.mark.parametrize("stops_at", [1, 4, 6])
def test_interrupted_within_a_round_it_gives_the_same_bits(town, tmp_path, stops_at):
    """A round of eight triplets lasts four steps; what was mined at its start is kept."""
    whole = triplet_stage(town)
    train(whole, loop(9, save_every=1), tmp_path / "whole")
    train(triplet_stage(town), loop(stops_at, save_every=1), tmp_path / "run")
    continued = triplet_stage(town)
    assert not same(whole, continued)
    train(continued, loop(9, save_every=1), tmp_path / "run")
    assert same(whole, continued)
    assert torch.equal(whole.get_extra_state(), continued.get_extra_state())


@pytest.mark.slow
def test_a_worker_prepares_the_same_bits(photos, tmp_path):
    data = open_training_data([str(photos)], Size(SIDE, SIDE))
    settings = DescriptorSettings(batch_size=4, learning_rate=1e-3)
    trained = []
    for workers in (0, 1):
        extractor, model = small_extractor(SIDE), small_model(SIDE)
        stage = MultiSimilarityStage(extractor, model, data, settings, training_data="textures")
        assert train(stage, loop(4, workers=workers), tmp_path / str(workers)).finished
        trained.append(stage)
    assert same(*trained)


def test_rounds_mine_anew_and_cover_all_triplets(town):
    stage = triplet_stage(town)
    assert stage.steps_per_round(processes=1) == 4
    assert stage.steps_per_round(processes=2) == 2
    with torch.no_grad():
        stage.begin_round(0)
        first = stage.get_extra_state().clone()
        stage.begin_round(4)
    assert first.shape == (8, 5)
    assert not torch.equal(first, stage.get_extra_state())


def cct_model():
    size = Size(48, 32)
    torch.manual_seed(0)
    backbone, aggregator = build_cct("cct_7_7x2_224", blocks=3, input_size=size), GeM()
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    state |= {f"aggregator.{name}": value for name, value in aggregator.state_dict().items()}
    preprocessing = Preprocessing(48, 32, "bilinear", True, (0.5,) * 3, (0.25,) * 3)
    return ModelFile("cct", Architecture("cct_7_7x2_224", "gem", blocks=3), preprocessing, "CC0", "noise", state)


def test_blocks_before_the_first_trained_one_stay_as_they_are(photos, tmp_path):
    model = cct_model()
    data = open_training_data([str(photos)], model.preprocessing.size)
    settings = DescriptorSettings(batch_size=4, learning_rate=1e-3)
    extractor = TrainableExtractor(model, first_trained_block=2)
    stage = MultiSimilarityStage(extractor, model, data, settings, training_data="textures, CC0")
    result = train(stage, loop(2), tmp_path / "run")
    trained = load_model(result.best_model)
    moved = {name for name, value in trained.tensors.items() if not torch.equal(value, model.tensors[name])}
    assert all(".blocks.2." in name or name == "aggregator.p" for name in moved)
    assert any(".blocks.2." in name for name in moved)
    assert trained.training_data == "noise; extractor: textures, CC0"
    assert load_extractor(str(result.best_model)).spec.dimension == 256
    with pytest.raises(ModelError, match="has no block 3"):
        TrainableExtractor(model, first_trained_block=3)


@pytest.mark.parametrize("freeze", [False, True])
def test_batch_norms_of_a_trained_network_keep_their_statistics(freeze):
    new = new_model("timm-cnn:resnet10t", "gem", Size(64, 64), seed=0)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    learned = TrainableExtractor(new, freeze_batch_norm=freeze).train()
    learned(images)  # a new network gets its first statistics in any case
    model = learned.model_file("noise")
    means = [value for name, value in model.tensors.items() if name.endswith("running_mean")]
    assert all(value.any() for value in means)
    extractor = TrainableExtractor(model, freeze_batch_norm=freeze).train()
    assert extractor.frozen_norms == (len(means) if freeze else 0)
    extractor(1 - images)
    after = extractor.model_file("noise").tensors
    moved = {name for name, value in model.tensors.items() if not torch.equal(value, after[name])}
    assert all("running" in name or "tracked" in name for name in moved)
    assert bool(moved) != freeze


def test_batch_norms_of_frozen_blocks_keep_their_statistics():
    model = new_model("timm-cnn:tf_efficientnet_lite0", "gem", Size(64, 64), seed=0)
    extractor = TrainableExtractor(model, first_trained_block=2).train()
    norms = {name: one for name, one in extractor.named_modules() if isinstance(one, torch.nn.BatchNorm2d)}
    trained = {name for name, one in norms.items() if one.training}
    assert trained == {name for name in norms if re.search(r"blocks\.[2-9]", name)}
    assert extractor.frozen_norms == len(norms) - len(trained) > 0 < len(trained)


def test_the_grid_is_measured_without_a_trace():
    model = new_model("timm-cnn:resnet10t", "gem", Size(64, 64), seed=0)
    extractor = TrainableExtractor(model)
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    assert extractor.grid(Size(64, 64)) == Grid(4, 4)
    assert extractor.training
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


def test_sift_has_nothing_to_train():
    with pytest.raises(ModelError, match="is not a network"):
        TrainableExtractor(open_model("sift-vlad"))


def test_held_out_pairs_are_ranked(town):
    stage = triplet_stage(town)
    found = stage.validate()
    assert 0 <= found.score < 1
    assert found.scalars["mean_reciprocal_rank"] == pytest.approx(1 - found.score)
    assert found.scalars["recall_at_1"] in {0, 50, 100}
    assert len(town.validation) == 2


def test_images_of_one_place_are_no_rivals_in_validation(town, monkeypatch):
    """All held-out pairs look alike; where they show one place, each is right."""
    stage, ranked = triplet_stage(town), []
    picture = np.full((64, 64, 3), 100, np.uint8)
    for places in (("a", "b"), ("a", "a")):
        pairs = [TrainingPair(picture, picture, places=frozenset([place])) for place in places]
        monkeypatch.setattr(stage, "_validation", SimpleNamespace(source=pairs, pair=pairs.__getitem__))
        near = iter([torch.zeros(2, 3), torch.tensor([[0.5, 0, 0], [0.2, 0, 0]])])
        monkeypatch.setattr(stage, "_vectors", lambda _, near=near: next(near))
        ranked.append(stage.validate().scalars["recall_at_1"])
    assert ranked == [50, 100]


@pytest.mark.parametrize("value", [1.0, torch.nan], ids=["collapsed", "nan"])
def test_a_network_that_tells_nothing_apart_is_not_the_best(town, monkeypatch, value):
    stage = triplet_stage(town)
    picture = np.full((64, 64, 3), 100, np.uint8)
    pairs = [TrainingPair(picture, picture, places=frozenset([place])) for place in "ab"]
    monkeypatch.setattr(stage, "_validation", SimpleNamespace(source=pairs, pair=pairs.__getitem__))
    monkeypatch.setattr(stage, "_vectors", lambda images: torch.full((len(images), 3), value))
    assert stage.validate().scalars["recall_at_1"] == 0
