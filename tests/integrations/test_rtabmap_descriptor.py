"""The file as RTAB-Map loads and calls it."""

import importlib
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr_dhe.errors import ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.integrations import rtabmap_descriptor
from vpr_dhe.models.names import DEFAULT_MODEL


@pytest.fixture
def loaded(monkeypatch):
    """Imported by its file name from its folder, as PyDescriptor.cpp does."""
    path = Path(rtabmap_descriptor.__file__)
    monkeypatch.setattr(sys, "path", [*sys.path, str(path.parent)])
    yield importlib.import_module(path.stem)
    del sys.modules[path.stem]


def as_rtabmap_has_it(pixels: np.ndarray) -> np.ndarray:
    """Rows x columns x channels of OpenCV, in an array of the type NPY_BYTE."""
    return pixels.view(np.int8)


@pytest.fixture
def photo() -> np.ndarray:
    coarse = np.random.default_rng(2).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def test_its_vectors_are_those_of_the_model_and_of_unit_norm(loaded, photo):
    extractor = load_extractor(DEFAULT_MODEL)
    loaded.init(extractor.spec.dimension)
    for bgr, rgb in (
        (photo, photo[..., ::-1]),
        (photo[..., :1], np.repeat(photo[..., :1], 3, axis=2)),
    ):
        found = loaded.extract(as_rtabmap_has_it(np.ascontiguousarray(bgr)))
        assert (found.dtype, found.shape) == (np.float32, (1, extractor.spec.dimension))
        expected = extractor.extract([np.ascontiguousarray(rgb)])[0].global_descriptor.numpy()
        np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-6)
        assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-6)


def test_the_manual_gives_the_dimension_of_the_default_model(loaded, photo):
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "ros.md").read_text(encoding="utf-8")
    dimension = re.search(r"--PyDescriptor/Dim (\d+)", guide)
    assert dimension
    loaded.init(int(dimension[1]))
    assert loaded.extract(as_rtabmap_has_it(photo)).shape == (1, int(dimension[1]))


def test_another_dimension_is_said_when_it_can_be(loaded, photo):
    assert loaded.init(4096) is None
    with pytest.raises(ModelError, match="PyDescriptor/Dim is 4096, but descriptors of lite-vlad have 768 dimensions"):
        loaded.extract(as_rtabmap_has_it(photo))


def test_the_model_is_chosen_by_the_environment(loaded, photo, monkeypatch):
    monkeypatch.setenv("VPR_DHE_MODEL", "no-such-model")
    loaded.init(512)
    with pytest.raises(ModelError, match="unknown model"):
        loaded.extract(as_rtabmap_has_it(photo))
