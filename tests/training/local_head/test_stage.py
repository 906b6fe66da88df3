"""The stage of local heads: cells learn to find their counterparts, and only from homographies that hold everywhere."""

import numpy as np
import pytest
import torch
from patches import write_textures
from random_models import random_model

from vpr_dhe.errors import DatasetError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.local_head import CONTEXT, local_head_of
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.geometry.homography import project
from vpr_dhe.models.model_file import load_model
from vpr_dhe.training.local_head import LocalHeadSettings, LocalHeadStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.sources import open_images
from vpr_dhe.training.sources.base import PairSource, TrainingPair
from vpr_dhe.training.sources.town import TownPairs

SETTINGS = LocalHeadSettings(batch_size=4, decay_steps=24, hidden=32, dimension=16, validation_pairs=8)


@pytest.fixture(scope="module")
def extractor():
    return NeuralExtractor(random_model("timm-cnn:resnet10t", "gem", None, 128), "tiny", torch.device("cpu"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory, extractor):
    folder = tmp_path_factory.mktemp("photos")
    write_textures(folder, 20)
    return open_images([folder], extractor.spec.input_size)


def stage_on(extractor, photos, head=None):
    return LocalHeadStage(extractor, *photos, SETTINGS, training_data="textures, CC0", head=head)


@pytest.mark.slow
def test_more_cells_find_their_counterpart_and_the_model_is_complete(extractor, photos, tmp_path):
    stage = stage_on(extractor, photos)
    before = stage.validate()
    result = train(stage, LoopSettings(24, validate_every=24, save_every=24, on_cpu=True), tmp_path / "run")
    after = stage.validate()
    assert after.scalars["found"] > 1.2 * before.scalars["found"]
    assert after.score < before.score
    assert result.best_score == pytest.approx(after.score)
    model = load_model(result.best_model)
    assert model.training_data == "none; local head: textures, CC0"
    assert (model.architecture.local_head, load_extractor(str(result.best_model)).spec.local_dimension) == (CONTEXT, 16)
    head = local_head_of(model)
    assert stage_on(extractor, photos, head).validate().score == pytest.approx(after.score)


@pytest.mark.slow
def test_interrupted_and_continued_it_gives_the_same_bits(extractor, photos, tmp_path):
    folders = []
    for name, stops in (("once", (4,)), ("twice", (2, 4))):
        for steps in stops:
            loop = LoopSettings(steps, validate_every=4, save_every=1, on_cpu=True)
            folders.append(train(stage_on(extractor, photos), loop, tmp_path / name).best_model)
    once, twice = (load_model(path).part("local_head") for path in (folders[0], folders[-1]))
    assert all(np.array_equal(once[name], twice[name]) for name in once)


def test_generated_streets_are_learned_by_the_matches_of_their_fronts(extractor):
    validation = stage_on(extractor, (TownPairs([3000], 4),) * 2).validate()
    assert validation.scalars["found"] > 0


class OfOnePlace(PairSource):
    """Pairs that show one place, and nothing is known of how."""

    knows_homographies, description = False, "one place"

    def __len__(self):
        return 4

    def pair(self, index, random):
        return TrainingPair(*random.integers(0, 256, (2, 128, 128, 3), np.uint8))


def test_pairs_without_known_counterparts_are_refused(extractor):
    stage = stage_on(extractor, (OfOnePlace(),) * 2)
    with pytest.raises(DatasetError, match="which pairs of a place data set do not have; give folders of images"):
        stage.validate()


class Matched(PairSource):
    """Pairs of a source of homographies, as matches of scattered points."""

    knows_homographies = False
    description = "matched textures"

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def pair(self, index, random):
        pair = self.source.pair(index, random)
        points = torch.from_numpy(random.uniform(0, 127, (200, 2)))
        there = project(torch.from_numpy(pair.homography), points)
        seen = ((there > 0) & (there < 127)).all(dim=1)
        matches = torch.cat([points, there], dim=1)[seen].numpy()
        return TrainingPair(pair.image_a, pair.image_b, matches=matches)


def test_matches_say_nearly_what_homographies_say(extractor, photos):
    by_homography = stage_on(extractor, photos).validate()
    by_matches = stage_on(extractor, (photos[0], Matched(photos[1]))).validate()
    assert by_matches.scalars["matching"] == pytest.approx(by_homography.scalars["matching"], rel=0.1)
    assert by_matches.scalars["found"] == pytest.approx(by_homography.scalars["found"], rel=0.3)
