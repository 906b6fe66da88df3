"""A small place recognition data set whose queries are blurred, noisy copies of some of its places."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

Name = Callable[[int, float, float], str]


def standard_name(number: int, east: float, north: float) -> str:
    return f"@{east:.2f}@{north:.2f}@31@U@@@place{number // 2:03d}@@@@@@@@.jpg"


@pytest.fixture
def place_tree(tmp_path) -> Callable[..., Path]:
    """Build a data set: `place_tree(parts, name)` writes to these two folders, named by `name(number, east, north)`."""

    def build(
        parts: tuple[str, str] = ("images/test/database", "images/test/queries"),
        name: Name = standard_name,
        *,
        places: int = 24,
        queries: int = 12,
        difficulty: float = 60.0,
    ) -> Path:
        rng = np.random.default_rng(11)
        root = tmp_path / "dataset"
        corners = rng.uniform(0, 150, (places, 2))
        pixels = [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(places)]
        for number in range(places):
            _write(root / parts[0] / name(number, *(500_000 + corners[number])), pixels[number])
        for number in range(queries):
            shown = number * places // queries
            noisy = pixels[shown] + cv2.resize(rng.normal(0, difficulty, (6, 8, 3)), (64, 48))
            position = 500_000 + corners[shown] + rng.uniform(-12, 12, 2)
            _write(root / parts[1] / name(number, *position), noisy.clip(0, 255).astype(np.uint8))
        return root

    return build


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
