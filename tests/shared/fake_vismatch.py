"""A package `vismatch` with few matchers, as the real one looks from outside."""

import sys
from pathlib import Path

import pytest

SOURCE = '''
"""Stands for vismatch."""
from urllib.error import URLError

available_models = ["oracle", "scattered", "sift", "loud", "offline", "late-offline", "lacking", "broken", "odd"]
HOMOGRAPHY = [[1.0, 0.05, 4.0], [-0.04, 0.97, 6.0], [1e-4, 2e-4, 1.0]]
"""Of `oracle`, between pixels of the images that it is given."""
calls = []


def get_matcher(matcher_name, device="cpu", max_num_keypoints=2048):
    print("a banner")
    if matcher_name == "offline":
        raise URLError(OSError("no route to host"))
    if matcher_name == "lacking":
        raise ModuleNotFoundError("No module named 'transforms3d'")
    if matcher_name == "broken":
        raise AttributeError("no attribute 'x'\\nsecond line")
    return Matcher(matcher_name)


class Matcher:
    skip_ransac = False

    def __init__(self, name):
        self.name = name

    def __call__(self, image_a, image_b):
        import numpy as np

        assert self.skip_ransac
        calls.append((self.name, tuple(image_a.shape), tuple(image_b.shape)))
        if self.name == "late-offline":
            raise OSError("cannot download")
        if self.name == "odd":
            return {"H": None}
        return getattr(self, f"_{self.name}")(np, image_a, image_b)

    def _oracle(self, np, image_a, image_b):
        """Right matches on a grid, as many wrong ones, and one that is not finite."""
        height, width = image_a.shape[-2:]
        grid = np.stack(np.meshgrid(np.arange(8, width - 8, 16.0), np.arange(8, height - 8, 16.0)), -1).reshape(-1, 2)
        moved = np.c_[grid, np.ones(len(grid))] @ np.array(HOMOGRAPHY).T
        wrong = np.random.default_rng(0).random((2, len(grid), 2)) * [width, height]
        none = np.full((1, 2), np.nan)
        return {
            "matched_kpts0": np.concatenate([grid, wrong[0], none]).astype(np.float32),
            "matched_kpts1": np.concatenate([moved[:, :2] / moved[:, 2:], wrong[1], none]).astype(np.float32),
            "matched_confidences": np.ones(2 * len(grid) + 1, np.float32),
        }

    def _scattered(self, np, image_a, image_b):
        """Draws from all global random states."""
        import random
        import torch

        points = np.random.rand(40, 2) * 60 + torch.rand(40, 2).numpy() + random.random()
        return {"matched_kpts0": points, "matched_kpts1": points + np.random.rand(40, 2)}

    def _loud(self, np, image_a, image_b):
        print("matching")
        return self._oracle(np, image_a, image_b)

    def _sift(self, np, image_a, image_b):
        """Fails where an image has no keypoints, as matchers of vismatch do."""
        import cv2

        sift = cv2.SIFT_create(500)
        pixels = [(255 * one).byte().permute(1, 2, 0).numpy() for one in (image_a, image_b)]
        grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in pixels]
        (at_a, of_a), (at_b, of_b) = (sift.detectAndCompute(one, None) for one in grey)
        pairs = cv2.BFMatcher(crossCheck=True).match(of_a, of_b)
        if len(pairs) == 0:
            raise IndexError("list index out of range")
        return {
            "matched_kpts0": np.array([at_a[pair.queryIdx].pt for pair in pairs]),
            "matched_kpts1": np.array([at_b[pair.trainIdx].pt for pair in pairs]),
            "matched_confidences": None,
        }
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the package on the path, in place of the real one."""
    (folder / "vismatch").mkdir(parents=True)
    (folder / "vismatch/__init__.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "vismatch", raising=False)


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make vismatch look as if it were not installed."""
    monkeypatch.delitem(sys.modules, "vismatch", raising=False)
    monkeypatch.setattr("vpr_dhe.verification.names.find_spec", lambda _name: None)
