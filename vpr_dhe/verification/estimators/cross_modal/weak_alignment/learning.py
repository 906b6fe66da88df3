"""Learning of a descriptor and a homography on one pair of images, from coarse to fine.

Experiments with the coarsest level are in `docs/experiments/notes.md`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import cos, pi
from time import monotonic
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image, Progress
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.levels import LevelImage, level_image
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import (
    PatchNetwork,
    below_margin,
    mean_where,
    new_network,
    squared_distances,
)
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.parametrisation import HomographyParameters
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import PatchFrames, sample_patches, warp_frames

SEED = 0
"""Seed of all random choices."""
# As a share of the image's longer side. Patches see no further than their width, so larger moves mean divergence.
_MAX_MOVE = 0.5
# A rough start errs more in rotation, scale and perspective than these are, if they are small; learning finds them.
_MAX_DEVIATION = 0.06


@dataclass(frozen=True)
class WeakAlignmentSettings:
    """Settings of the learning on a pair.

    Args:
        pseudo_siamese: whether each image has its own first layer, as for images of different sensors.
        sides_px: longer side of the images at each level, coarse to fine.
        steps: steps at each level.
        batch_size: pairs of patches in a step, half of them positive.
        learning_rate: learning rate at the start of a level, of stochastic gradient descent with momentum; it falls
            along a cosine.
        momentum: momentum of the descent.
        margin: smallest distance of descriptors of different places.
        homography_scale: see `HomographyParameters`.
        max_network_gradient: norm that gradients of the network are clipped to; on rich texture the first ones would
            make it diverge.
        max_homography_gradient: norm that gradients of the homography's parameters are clipped to.
        max_octaves: octaves that the scales of patches are spread over.
        max_seconds: time limit of a pair, met by skipping steps evenly; None is no limit. With a limit, the result
            depends on the speed of the machine.
    """

    pseudo_siamese: bool = False
    sides_px: tuple[int, ...] = (64, 128, 256)
    steps: tuple[int, ...] = (250, 150, 150)
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    margin: float = 1.0
    homography_scale: float = 0.1
    max_network_gradient: float = 5.0
    max_homography_gradient: float = 0.3
    max_octaves: float = 1.0
    max_seconds: float | None = None

    def from_a_start(self) -> "WeakAlignmentSettings":
        """Settings for pairs whose homography is known roughly: without the coarsest level."""
        return replace(self, sides_px=self.sides_px[1:], steps=self.steps[1:]) if len(self.steps) > 1 else self


class Learned(NamedTuple):
    """Result of learning on a pair: the homography between original pixels, and its support.

    `recognised` is the share of patches of A that find their own place in B; see `recognised_share`.
    """

    homography: Float64[np.ndarray, "3 3"]
    recognised: float


@torch.inference_mode(False)
@torch.enable_grad()
def learn_alignment(
    image_a: Image,
    image_b: Image,
    settings: WeakAlignmentSettings,
    device: str,
    progress: Progress,
    start: Float64[np.ndarray, "3 3"] | None = None,
) -> Learned | None:
    """Align two roughly aligned images; None if one is flat, or a corner moves by more than half the longer side.

    `progress` is called with the number of steps just done, `sum(settings.steps)` in all. Gradients are computed even
    if the caller has disabled them. `start` is a rough homography to begin with, between original pixels, or with its
    translation alone if that is nearly all; by default, the images are laid on top of each other.
    """
    random = np.random.default_rng(SEED)
    parameters = HomographyParameters(settings.homography_scale).to(device)
    if start is not None:
        parameters.start_at(torch.from_numpy(start), image_size(image_a), image_size(image_b))
        parameters.reduce_to_translation(_MAX_DEVIATION)
    level: _Level | None = None
    share = 1 / len(settings.sides_px)
    for number, (side_px, steps) in enumerate(zip(settings.sides_px, settings.steps, strict=True)):
        images = [level_image(image, side_px, settings.max_octaves, random) for image in (image_a, image_b)]
        if any(image is None for image in images):
            return None
        a, b = (image.to(device) for image in images if image is not None)
        level = _Level(a, b, parameters, settings, SEED + number)
        seconds = None if settings.max_seconds is None else share * settings.max_seconds
        for fraction in _schedule(steps, seconds, progress):
            level.step(level.draw(random), fraction)
        # Written so that NaN fails too.
        if not parameters.largest_move() < _MAX_MOVE:
            return None
    assert level is not None, "a pyramid has at least one level"
    with torch.no_grad():
        homography = parameters.between_originals(image_size(image_a), image_size(image_b))
        return Learned(homography.cpu().numpy(), level.recognised_share(random))


def _schedule(steps: int, seconds: float | None, progress: Progress) -> Iterator[float]:
    """Fraction of a level that is done at each step, by the number of steps or by time, whichever is larger."""
    started, step, done = monotonic(), 0, 0
    while True:
        used = 0.0 if seconds is None else (monotonic() - started) / seconds
        fraction = max(step / steps, used)
        reached = min(steps, int(fraction * steps))
        progress(reached - done)
        done = reached
        if fraction >= 1:
            return
        yield fraction
        step += 1


class _Draw(NamedTuple):
    """Patches of A, and random patches of B."""

    of_a: PatchFrames
    of_b: PatchFrames


class _Level:
    """Learning at one resolution: a new network, and the homography of the level before."""

    def __init__(
        self,
        a: LevelImage,
        b: LevelImage,
        parameters: HomographyParameters,
        settings: WeakAlignmentSettings,
        seed: int,
    ) -> None:
        self._a, self._b, self._parameters, self._settings = a, b, parameters, settings
        self._network: PatchNetwork = new_network(seed, pseudo_siamese=settings.pseudo_siamese).to(a.pixels.device)
        trained = [*self._network.parameters(), parameters.values]
        self._optimizer = torch.optim.SGD(trained, lr=settings.learning_rate, momentum=settings.momentum)

    def draw(self, random: np.random.Generator) -> _Draw:
        """Draw half a batch of patches of each image."""
        half = self._settings.batch_size // 2
        return _Draw(_some_keypoints(self._a, half, random), _some_keypoints(self._b, half, random))

    def step(self, drawn: _Draw, fraction: float) -> None:
        """Update network and homography by one step of gradient descent."""
        rate = self._settings.learning_rate * (0.5 + 0.5 * cos(pi * fraction))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        self.loss(drawn).backward()
        clip_grad_norm_(self._network.parameters(), self._settings.max_network_gradient)
        clip_grad_norm_([self._parameters.values], self._settings.max_homography_gradient)
        self._optimizer.step()

    def loss(self, drawn: _Draw) -> Float[Tensor, ""]:
        """Contrastive loss of patches that the homography maps onto each other, and of patches that lie apart."""
        moved = self._moved(drawn.of_a)
        together, apart = moved.inside(self._b.frame.input_size), _lie_apart(moved, drawn.of_b)
        patches_a = sample_patches(self._a.pixels, drawn.of_a)
        patches_b = [sample_patches(self._b.pixels, frames) for frames in (moved, drawn.of_b)]
        anchors, (positives, negatives) = self._extract(patches_a, patches_b)
        attraction = mean_where(squared_distances(anchors, positives), together)
        repulsion = mean_where(below_margin(squared_distances(anchors, negatives), self._settings.margin), apart)
        return (attraction + repulsion) / 2

    def _extract(self, patches_a: Tensor, patches_b: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        descriptors_a, descriptors_b = self._network(patches_a, torch.cat(patches_b))
        return descriptors_a, descriptors_b.split([len(part) for part in patches_b])

    def _moved(self, frames: PatchFrames) -> PatchFrames:
        between = self._parameters.between_inputs(self._a.frame, self._b.frame)
        return warp_frames(frames, between.to(frames.centres))

    def recognised_share(self, random: np.random.Generator, count: int = 256) -> float:
        """Share of patches of A whose nearest descriptor in B, among patches that lie apart, is their own place.

        It is 0 if no patch lands in B.
        """
        of_a = _some_keypoints(self._a, count, random)
        moved = self._moved(of_a)
        together = moved.inside(self._b.frame.input_size)
        if not together.any():
            return 0.0
        of_a, moved = of_a.chosen(together), moved.chosen(together)
        descriptors, (places,) = self._extract(
            sample_patches(self._a.pixels, of_a), [sample_patches(self._b.pixels, moved)]
        )
        near = torch.cdist(moved.centres, moved.centres) < moved.widths_px()[:, None] / 2
        distances = torch.cdist(descriptors, places)
        others = distances.masked_fill(near, torch.inf).amin(dim=1)
        return float((distances.diagonal() < others).float().mean())


def _some_keypoints(image: LevelImage, count: int, random: np.random.Generator) -> PatchFrames:
    numbers = torch.from_numpy(random.integers(len(image.keypoints.centres), size=count))
    return image.keypoints.chosen(numbers.to(image.pixels.device))


def _lie_apart(moved: PatchFrames, of_b: PatchFrames) -> Bool[Tensor, " patches"]:
    """Mask of patches of B at least the width of a patch away from the moved patches of A."""
    with torch.no_grad():
        return torch.linalg.vector_norm(moved.centres - of_b.centres, dim=-1) >= moved.widths_px()
