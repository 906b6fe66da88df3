"""An export in the place of its model."""

import hashlib
import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import IndexFormatError, ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.models.exported_model import load_exported


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def test_is_interchangeable_with_its_model(exported):
    in_torch, in_onnx = load_extractor(str(exported.model), runtime="torch"), load_extractor(str(exported.folder))
    assert replace(in_onnx.spec, model=in_torch.spec.model) == in_torch.spec
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (60 + number, 90, 3), np.uint8) for number in range(3)]
    for one, other in zip(in_torch.extract(images), in_onnx.extract(images), strict=True):
        assert (one.grid, one.frame) == (other.grid, other.frame)
        torch.testing.assert_close(one.global_descriptor, other.global_descriptor, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.local_map, other.local_map, rtol=1e-4, atol=1e-5)


def test_threads_are_those_of_torch(exported):
    session = load_extractor(str(exported.folder))._session
    for threads in (torch.get_num_threads(), 1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert session._session().get_session_options().intra_op_num_threads == threads
        finally:
            torch.set_num_threads(before)


def test_a_session_travels_to_other_processes(exported):
    session = load_extractor(str(exported.folder))._session
    shape = tuple(session._session().get_inputs()[0].shape[1:])
    images = torch.rand(2, *shape)
    for one, other in zip(session(images), pickle.loads(pickle.dumps(session))(images), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_either_answers_from_an_index_of_the_other(exported, photo_folder, tmp_path):
    records, answers = read_split(photo_folder).records, []
    for made_by, asked_by in ((exported.model, exported.folder), (exported.folder, exported.model)):
        extractor = load_extractor(str(made_by))
        index = PlaceIndex.create(tmp_path / made_by.name, extractor.spec, photo_folder, codec="float16")
        index.add(records, extractor)
        for model in (None, str(asked_by)):
            localizer = Localizer.open(index.folder, model=model)
            matches = localizer.localize(photo_folder / "03.png", top_k=12).matches
            answers.append([(match.image, match.verification.inliers) for match in matches])
    assert answers[0][0][0] == "03.png"
    assert answers == answers[:1] * 4


def test_an_export_of_another_model_is_refused(exported, copy, photo_folder, tmp_path):
    extractor = load_extractor(str(exported.model))
    index = PlaceIndex.create(tmp_path / "index", extractor.spec, photo_folder)
    other = load_exported(copy)
    replace(other, info=replace(other.info, fingerprint="0" * 64)).save()
    with pytest.raises(IndexFormatError, match=r"the index was made with model .*, not with .*copy.*\(000000000000\)"):
        Localizer.open(index.folder, model=str(copy))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "export.json").unlink(), "contains no export.json; give one that"),
        (lambda folder: (folder / "export.json").write_text("{"), "is not readable JSON"),
        (lambda folder: (folder / "export.json").write_text("[]"), "is not of the format"),
        (lambda folder: edit(folder / "export.json", b'"tiny"', b'"tony"'), "does not agree with its checksum"),
        (lambda folder: (folder / "extractor.onnx").unlink(), "extractor.onnx cannot be read"),
        (lambda folder: truncate(folder / "extractor.onnx"), "extractor.onnx does not agree with its checksum"),
    ],
)
def test_damage_is_found_before_anything_is_answered(copy, damage, message):
    damage(copy)
    with pytest.raises(ModelError, match=message):
        load_extractor(str(copy))


@pytest.mark.parametrize(
    "changed",
    [{"quantisation": "int4"}, {"architecture": {"backbone": "b", "layout": 2}}, {"parts": ["extractor"]}],
)
def test_a_later_version_is_said_to_be_one(copy, changed):
    path = copy / "export.json"
    document = json.loads(path.read_text()) | changed
    del document["sha256"]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(document | {"sha256": digest}))
    with pytest.raises(ModelError, match=r"was written by another version .* export the model again"):
        load_extractor(str(copy))


def edit(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_what_cannot_run_is_explained(exported):
    with pytest.raises(ModelError, match=r"does not contain the head of 'tiny', only extractor"):
        load_exported(exported.folder).session("head")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run on meta here .*use --device cpu"):
        load_extractor(str(exported.folder), "meta")


def test_a_bundled_name_is_no_folder(tmp_path, monkeypatch):
    (tmp_path / "sift-vlad").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_extractor("sift-vlad").spec.model == "sift-vlad"
    with pytest.raises(ModelError, match="contains no export"):
        load_extractor("./sift-vlad")
