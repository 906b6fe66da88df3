"""A way that is gone twice, and an index for it."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Image
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

_LAP = 11


def views(starts_px: Sequence[float], *, brightness: float = 1.0) -> list[Image]:
    """What a camera sees of a long wall: 96 x 72 px each, from these places on."""
    rng = np.random.default_rng(11)
    wall = cv2.resize(rng.integers(0, 256, (9, 240, 3), np.uint8), (240 * 8, 72), interpolation=cv2.INTER_CUBIC)
    lit = np.clip(brightness * wall.astype(np.float64), 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(lit[:, round(start) : round(start) + 96]) for start in starts_px]


@pytest.fixture(scope="session")
def laps() -> list[Image]:
    """Two laps, the second a little beside the first and darker."""
    first = 60.0 * np.arange(_LAP)
    return views(first.tolist()) + views((first + 3).tolist(), brightness=0.8)


@pytest.fixture
def empty_index(tmp_path, thumbnail_extractor) -> PlaceIndex:
    (tmp_path / "frames").mkdir()
    return PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, tmp_path / "frames", codec="float16")


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(build_estimator("magsac"))
