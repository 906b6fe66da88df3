"""Learning on one pair of images, from coarse to fine: what descends, on what, and for how long.

Tried at the coarsest level alone, on RGB and near-infrared pairs shifted by 5 and 10 % of their size:

- colour aligned 11 and 7 of 13 pairs, grey 11 and 3; descriptors of unit length 8 and 4;
- of nine pairs at 10 %, four were aligned; with twice the steps four, at 48 px two;
- the five most difficult of them at 10 %, none or one of which was aligned, got no better by a larger homography scale,
  by shifts before other parameters, by three short networks one after the other, or by larger patches at 96 px.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi
from time import monotonic
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from vpr_dhe.images import image_size
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
"""Of all random choices: a figure comes out the same again."""
# Of the image's longer side. Patches see no further than their width; what moves so far has lost its way.
_FARTHEST_MOVE = 0.5


@dataclass(frozen=True)
class WeakAlignmentSettings:
    """How a pair is learned from.

    Args:
        pseudo_siamese: whether the first layer is another for each image, as for images of different sensors.
        sides_px: the longer side of the images at each level, coarse to fine.
        steps: at each level.
        batch_size: pairs of patches in a step, half of which belong together.
        learning_rate: of stochastic gradient descent with momentum, at the start of a level; it falls along a cosine.
        momentum: of the descent.
        margin: that descriptors are to lie apart whose patches show different places.
        homography_scale: see `HomographyParameters`.
        max_network_gradient: longer gradients of the network are scaled down to it: where every patch is as rich as
            grass, the first ones would throw it off.
        max_homography_gradient: the same for the homography's parameters.
        max_octaves: over how many octaves the scales of patches are spread.
        max_seconds: after which a pair is done, steps being left out evenly; None is never. What is found then
            depends on how fast the machine is.
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


class Learned(NamedTuple):
    """What has been learned of a pair: the homography between original pixels, and how sure it is.

    `recognised` is the share of patches of A which, among as many, find their own place in B; see `recognised_share`.
    """

    homography: Float64[np.ndarray, "3 3"]
    recognised: float


@torch.inference_mode(False)
@torch.enable_grad()
def learn_alignment(
    image_a: Image, image_b: Image, settings: WeakAlignmentSettings, device: str, progress: Progress
) -> Learned | None:
    """Align two images that are roughly aligned; None where they show nothing, or a corner moves half the image away.

    `progress` is called with the number of steps just done, `sum(settings.steps)` in all. Gradients are computed even
    where the caller has switched them off.
    """
    random = np.random.default_rng(SEED)
    parameters = HomographyParameters(settings.homography_scale).to(device)
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
        # A comparison with what is not finite is false.
        if not parameters.largest_move() < _FARTHEST_MOVE:
            return None
    assert level is not None, "a pyramid has at least one level"
    with torch.no_grad():
        homography = parameters.between_originals(image_size(image_a), image_size(image_b))
        return Learned(homography.cpu().numpy(), level.recognised_share(random))


def _schedule(steps: int, seconds: float | None, progress: Progress) -> Iterator[float]:
    """Which part of a level is done at each step, by the number of steps or by the time, whichever is further."""
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
    """Patches of A, and patches anywhere in B."""

    of_a: PatchFrames
    of_b: PatchFrames


class _Level:
    """A network that begins anew, and the homography that goes on, at one resolution."""

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
        """One step down the loss, for network and homography at once."""
        rate = self._settings.learning_rate * (0.5 + 0.5 * cos(pi * fraction))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        self.loss(drawn).backward()
        clip_grad_norm_(self._network.parameters(), self._settings.max_network_gradient)
        clip_grad_norm_([self._parameters.values], self._settings.max_homography_gradient)
        self._optimizer.step()

    def loss(self, drawn: _Draw) -> Float[Tensor, ""]:
        """The contrast of pairs that the homography brings together with pairs that lie apart under it."""
        moved = self._moved(drawn.of_a)
        together, apart = moved.inside(self._b.frame.input_size), _lie_apart(moved, drawn.of_b)
        patches_a = sample_patches(self._a.pixels, drawn.of_a)
        patches_b = [sample_patches(self._b.pixels, frames) for frames in (moved, drawn.of_b)]
        described, (positives, negatives) = self._describe(patches_a, patches_b)
        attraction = mean_where(squared_distances(described, positives), together)
        repulsion = mean_where(below_margin(squared_distances(described, negatives), self._settings.margin), apart)
        return (attraction + repulsion) / 2

    def _describe(self, patches_a: Tensor, patches_b: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        described_a, described_b = self._network(patches_a, torch.cat(patches_b))
        return described_a, described_b.split([len(part) for part in patches_b])

    def _moved(self, frames: PatchFrames) -> PatchFrames:
        between = self._parameters.between_inputs(self._a.frame, self._b.frame)
        return warp_frames(frames, between.to(frames.centres))

    def recognised_share(self, random: np.random.Generator, count: int = 256) -> float:
        """Of patches of A whose place in B is most like them, among the places of all that lie apart; 0 without any."""
        of_a = _some_keypoints(self._a, count, random)
        moved = self._moved(of_a)
        together = moved.inside(self._b.frame.input_size)
        if not together.any():
            return 0.0
        of_a, moved = of_a.chosen(together), moved.chosen(together)
        described, (places,) = self._describe(
            sample_patches(self._a.pixels, of_a), [sample_patches(self._b.pixels, moved)]
        )
        near = torch.cdist(moved.centres, moved.centres) < moved.widths_px()[:, None] / 2
        distances = torch.cdist(described, places)
        others = distances.masked_fill(near, torch.inf).amin(dim=1)
        return float((distances.diagonal() < others).float().mean())


def _some_keypoints(image: LevelImage, count: int, random: np.random.Generator) -> PatchFrames:
    numbers = torch.from_numpy(random.integers(len(image.keypoints.centres), size=count))
    return image.keypoints.chosen(numbers.to(image.pixels.device))


def _lie_apart(moved: PatchFrames, of_b: PatchFrames) -> Bool[Tensor, " patches"]:
    """Which patches of B lie at least the width of a patch away from where those of A have come to lie."""
    with torch.no_grad():
        return torch.linalg.vector_norm(moved.centres - of_b.centres, dim=-1) >= moved.widths_px()
