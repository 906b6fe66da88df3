"""One level of the pyramid: an image at a resolution, and its keypoints."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Image, Size
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import PatchFrames

MAX_KEYPOINTS = 4000
# Least gradient at keypoints, in images of mean 0 and deviation 1.
_MIN_GRADIENT = 0.05
# More are drawn than needed, because some lie too close to the border.
_SURPLUS = 4
_MIN_DEVIATION = 1e-6
# np.gradient needs two pixels.
_MIN_SIDE_PX = 2


@dataclass(frozen=True)
class LevelImage:
    """An image of mean 0 and deviation 1, and patches around pixels with a gradient."""

    pixels: Float[Tensor, "3 height width"]
    frame: Frame
    keypoints: PatchFrames

    def to(self, device: str) -> "LevelImage":
        """Move it to a device."""
        return LevelImage(
            self.pixels.to(device), self.frame, PatchFrames(*(part.to(device) for part in self.keypoints))
        )


def level_image(image: Image, side_px: int, max_octaves: float, random: np.random.Generator) -> LevelImage | None:
    """Shrink an image so that its longer side is `side_px`, and draw keypoints; None if the image is flat."""
    size = image_size(image)
    shrinking = min(1.0, side_px / max(size))
    level_size = Size(*(max(_MIN_SIDE_PX, round(shrinking * side)) for side in size))
    pixels = standardised(cv2.resize(image, level_size, interpolation=cv2.INTER_AREA))
    if pixels is None:
        return None
    keypoints = draw_keypoints(pixels.mean(axis=2), max_octaves, random)
    if not len(keypoints.centres):
        return None
    return LevelImage(as_tensor(pixels), Frame(size, level_size), keypoints)


def standardised(image: Image) -> Float32[np.ndarray, "height width 3"] | None:
    """Scale an image to mean 0 and deviation 1 over all channels; None if it is flat."""
    pixels = image.astype(np.float32)
    deviation = pixels.std()
    return None if deviation < _MIN_DEVIATION else (pixels - pixels.mean()) / deviation


def as_tensor(pixels: Float32[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """Convert pixels to a tensor with channels first."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def draw_keypoints(
    grey: Float32[np.ndarray, "height width"], max_octaves: float, random: np.random.Generator
) -> PatchFrames:
    """Draw at most 4,000 patches inside an image, around pixels whose gradient exceeds 0.05.

    Orientations are uniform, and so are logarithms of scales: a sample of a patch is 1 to 2^max_octaves pixels wide.
    """
    down, right = np.gradient(grey)
    rows, columns = np.nonzero(np.hypot(right, down) > _MIN_GRADIENT)
    count = _SURPLUS * MAX_KEYPOINTS if len(rows) else 0
    chosen = random.integers(len(rows), size=count) if count else np.empty(0, np.int64)
    angles, scales = random.uniform(0, 2 * np.pi, count), 2 ** random.uniform(0, max_octaves, count)
    centres = np.stack([columns[chosen], rows[chosen]], axis=1)
    steps = scales[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    frames = PatchFrames(torch.from_numpy(centres).float(), torch.from_numpy(steps).float())
    inside = frames.inside(Size(grey.shape[1], grey.shape[0])).nonzero()[:MAX_KEYPOINTS, 0]
    return frames.chosen(inside)
