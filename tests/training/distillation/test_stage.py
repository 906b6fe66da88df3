"""The stage of distillation: a student comes to have the tokens of its teacher, and ends in the teacher's parts."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from patches import write_textures
from random_models import random_model
from torch.nn.functional import normalize

from vpr_dhe.errors import BadInputError, DatasetError, ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.local_head import CONTEXT, LocalHead, LocalHeadSizes
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Size
from vpr_dhe.training.distillation import DistillationSettings, DistillationStage, open_views, student_of
from vpr_dhe.training.distillation.stage import relation_loss, token_loss
from vpr_dhe.training.loop import LoopSettings, train

SETTINGS = DistillationSettings(batch_size=4, learning_rate=3e-3, decay_steps=200, validation_photos=4)
SIDE = 64


@pytest.fixture(scope="module")
def teacher():
    model = random_model("timm-cnn:resnet10t", "vlad", None, SIDE)
    torch.manual_seed(1)
    head = LocalHead(model.part("aggregator")["mean"].numel(), LocalHeadSizes(8, 8))
    return replace(model.with_local_head(CONTEXT, head.state_dict()), name="teacher", licence="CC0")


@pytest.fixture(scope="module")
def student(teacher):
    return student_of(teacher, random_model("cct_7_7x2_224", "gem", 1, 32), 0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_textures(folder, 12)
    return folder


def stage_of(student, teacher, photos, settings=SETTINGS, view_side=SIDE):
    views = open_views([photos], student.preprocessing.size, Size(view_side, view_side))
    size = Size(view_side, view_side)
    return DistillationStage(student, teacher, *views, settings, view_size=size, training_data="textures, CC0")


@pytest.mark.slow
def test_a_student_learns_and_its_model_ends_in_the_parts_of_its_teacher(student, teacher, photos, tmp_path):
    stage = stage_of(student, teacher, photos, view_side=48)
    before = stage.validate()
    result = train(stage, LoopSettings(20, validate_every=20, save_every=20, on_cpu=True), tmp_path / "run")
    after = stage.validate()
    assert after.score < 0.9 * before.score
    assert after.scalars["tokens"] < before.scalars["tokens"]
    assert result.best_score == pytest.approx(after.score)
    model = load_model(result.best_model)
    described = "none; aggregator and local head: those of teacher (none); distillation of teacher: textures, CC0"
    assert model.training_data == described
    assert (model.licence, model.architecture.backbone) == ("CC0", "projected:256:cct_7_7x2_224")
    for part in ("aggregator", "local_head"):
        assert all(torch.equal(value, teacher.part(part)[name]) for name, value in model.part(part).items())
    spec = load_extractor(str(result.best_model)).spec
    assert (spec.grid, spec.local_dimension) == ((4, 4), 8)


def test_interrupted_and_continued_it_gives_the_same_bits(student, teacher, photos, tmp_path):
    models = []
    for name, stops in (("once", (4,)), ("twice", (2, 4))):
        for steps in stops:
            loop = LoopSettings(steps, validate_every=4, save_every=1, on_cpu=True)
            models.append(train(stage_of(student, teacher, photos), loop, tmp_path / name).best_model)
    once, twice = (load_model(path).part("backbone") for path in (models[0], models[-1]))
    assert all(np.array_equal(once[name], twice[name]) for name in once)


def test_a_run_with_another_teacher_is_refused(student, teacher, photos, tmp_path):
    loop = LoopSettings(1, on_cpu=True)
    train(stage_of(student, teacher, photos), loop, tmp_path / "run")
    other = random_model("timm-cnn:resnet10t", "vlad", None, SIDE, seed=1)
    with pytest.raises(BadInputError, match="contains a run with "):
        train(stage_of(student_of(other, student, 0), other, photos), loop, tmp_path / "run")


def test_a_student_begins_with_the_weights_of_its_network_at_the_size_of_its_teacher(teacher):
    start = random_model("cct_7_7x2_224", "gem", 1, 32)
    student = student_of(teacher, start, 0)
    assert (student.preprocessing.size, student.preprocessing.std) == ((SIDE, SIDE), start.preprocessing.std)
    found, expected = student.part("backbone.backbone"), start.part("backbone")
    assert found["classifier.positional_emb"].shape == (1, 16, 256)
    del found["classifier.positional_emb"], expected["classifier.positional_emb"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    again = student_of(teacher, student, 1)
    assert again.extractor_fingerprint == student.extractor_fingerprint


def test_networks_that_do_not_fit_are_named(teacher, photos):
    with pytest.raises(ModelError, match="has the aggregator 'gem'; choose a teacher with one of vlad"):
        student_of(random_model("timm-cnn:resnet10t", "gem", None, SIDE), teacher, 0)
    other = student_of(random_model("timm-cnn:mobilenetv3_small_050", "vlad", None, SIDE), teacher, 0)
    with pytest.raises(ModelError, match="dimensions, its teacher of 256"):
        student_of(teacher, other, 0)
    with pytest.raises(BadInputError, match="does not exist; expected a folder of images"):
        open_views([photos], Size(SIDE, SIDE), Size(SIDE, SIDE), [photos / "none"])


def test_losses_are_zero_for_the_teacher_itself_and_known_for_opposites():
    torch.manual_seed(0)
    tokens = normalize(torch.randn(2, 5, 8), dim=-1)
    seen = torch.ones(2, 5, dtype=torch.bool)
    assert float(token_loss(tokens, tokens, seen)) == pytest.approx(0, abs=1e-6)
    common = tokens.flatten(0, 1).mean(0)
    assert float(token_loss(2 * common - tokens, tokens, seen)) == pytest.approx(2, abs=1e-5)
    hidden = tokens.clone()
    hidden[0, 0] = -hidden[0, 0]
    seen[0, 0] = False
    assert float(token_loss(hidden, tokens, seen)) == pytest.approx(0, abs=1e-6)
    vectors = normalize(torch.randn(3, 8), dim=1)
    assert float(relation_loss(vectors, vectors)) == pytest.approx(0, abs=1e-12)
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    assert float(relation_loss(vectors @ rotation, vectors)) == pytest.approx(0, abs=1e-10)
    two = torch.eye(2)
    assert float(relation_loss(two, two[[0, 0]])) == pytest.approx(1)
    assert float(relation_loss(two[:1], two[1:])) == 0


def test_views_are_the_same_for_both_but_for_light(photos):
    training, validation = open_views([photos], Size(SIDE, SIDE), Size(48, 48))
    assert (len(training), len(validation)) == (10, 2)
    random = np.random.default_rng(0)
    pairs = [training.pair(number % len(training), random) for number in range(60)]
    assert all(image.shape == (48, 48, 3) for pair in pairs for image in (pair.image_a, pair.image_b))
    same = sum(np.array_equal(pair.image_a, pair.image_b) for pair in pairs)
    assert 30 < same < 60
    whole = validation.pair(0, random)
    assert np.array_equal(whole.image_a, whole.image_b)
    (photos / "single").mkdir()
    shutil.copy(photos / "0.png", photos / "single")
    with pytest.raises(DatasetError, match="give more data"):
        open_views([photos / "single"], Size(SIDE, SIDE), Size(48, 48))
    shutil.rmtree(photos / "single")
    chosen = open_views([photos], Size(SIDE, SIDE), Size(48, 48), [photos])
    assert [len(views) for views in chosen] == [12, 12]
