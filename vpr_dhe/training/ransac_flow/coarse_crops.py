"""Training pairs of RANSAC-Flow's fine network: crops aligned by the coarse stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.geometry.coordinates import UNIT, cell_centres, resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Grid, Size
from vpr_dhe.training.sources.base import TrainingPair
from vpr_dhe.verification.estimators.ransac_flow.coarse import cells_of, fit, match_cells
from vpr_dhe.verification.estimators.ransac_flow.sampling import lies_in, sampled, to_tensor

_CPU = torch.device("cpu")


class CropBatch(NamedTuple):
    """Crops of pairs on the CPU, in [0, 1]: the target from image A, the source from B, aligned by the coarse stage.

    `covered` is 1 where B has pixels. `flow_px` is the residual flow, where `known` marks it as such.
    """

    source: Float[Tensor, "pairs 3 side side"]
    target: Float[Tensor, "pairs 3 side side"]
    covered: Float[Tensor, "pairs 1 side side"]
    flow_px: Float[Tensor, "pairs 2 side side"]
    known: Bool[Tensor, "pairs side side"]


@dataclass(frozen=True)
class CropSettings:
    """Parameters of crops.

    Args:
        image_px: size of A's shorter side after resizing.
        crop_px: side of crops, a multiple of 8.
        min_inliers: minimum inliers of a pair's coarse alignment.
        min_covered: minimum share of the crop that B covers.
    """

    image_px: int = 240
    crop_px: int = 224
    min_inliers: int = 16
    min_covered: float = 0.5


def coarse_crops(
    pairs: Sequence[TrainingPair],
    extractor: Extractor,
    settings: CropSettings,
    random: np.random.Generator | None = None,
) -> CropBatch:
    """Align pairs at one scale and crop them at random, or at the centre if `random` is None.

    The batch is empty if the coarse stage aligns no pair.
    """
    features = extractor.extract([image for pair in pairs for image in (pair.image_a, pair.image_b)])
    crops: list[CropBatch] = []
    for pair, query, candidate in zip(pairs, features[::2], features[1::2], strict=True):
        # Drawn for every pair, so that skipping a pair does not change the others.
        start = np.full(2, 0.5) if random is None else random.uniform(0, 1, 2)
        (matches,) = match_cells(cells_of(query), [cells_of(candidate)])
        found = fit(matches)
        if found is None or int(found.inliers.sum()) < settings.min_inliers:
            continue
        crop = _crop(pair, found.homography, settings, start)
        if float(crop.covered.mean()) >= settings.min_covered:
            crops.append(crop)
    if not crops:
        return _empty_batch(settings.crop_px)
    return CropBatch(*(torch.cat(parts) for parts in zip(*crops, strict=True)))


def _crop(
    pair: TrainingPair,
    coarse: Float64[Tensor, "3 3"],
    settings: CropSettings,
    start: Float64[np.ndarray, "2"],
) -> CropBatch:
    size_a, size_b = image_size(pair.image_a), image_size(pair.image_b)
    scale = settings.image_px / min(size_a)
    whole = Size(*(max(settings.crop_px, round(side * scale)) for side in size_a))
    seen = Size(settings.crop_px, settings.crop_px)
    left, top = (np.floor(start * (np.array(whole) - settings.crop_px + 1))).tolist()
    seen_to_whole = torch.tensor([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]], dtype=torch.float64)
    seen_to_a = resizing(whole, size_a) @ seen_to_whole
    seen_to_b = resizing(UNIT, size_b) @ coarse @ resizing(size_a, UNIT) @ seen_to_a
    centres = cell_centres(Grid(seen.height, seen.width), seen).view(seen.height, seen.width, 2)
    covered = lies_in(project(seen_to_b, centres), centres, seen_to_b, size_b)
    flow, known = _true_flow(pair, seen_to_a, seen_to_b, centres)
    return CropBatch(
        to_tensor(sampled(pair.image_b, seen_to_b.numpy(), seen), _CPU),
        to_tensor(sampled(pair.image_a, seen_to_a.numpy(), seen), _CPU),
        covered[None, None].float(),
        flow.permute(2, 0, 1)[None].float(),
        known[None],
    )


def _true_flow(
    pair: TrainingPair,
    seen_to_a: Float64[Tensor, "3 3"],
    seen_to_b: Float64[Tensor, "3 3"],
    centres: Float64[Tensor, "height width 2"],
) -> tuple[Float64[Tensor, "height width 2"], Bool[Tensor, "height width"]]:
    """Residual flow after the coarse alignment at each pixel of the crop, and a mask of where it is known."""
    if pair.homography is None or not (pair.holds_everywhere or pair.residual_px is not None):
        return torch.zeros_like(centres), torch.zeros(centres.shape[:2], dtype=torch.bool)
    in_a, known = project(seen_to_a, centres), torch.ones(centres.shape[:2], dtype=torch.bool)
    if pair.residual_px is not None:
        in_a = in_a + torch.from_numpy(_at(pair.residual_px, in_a.numpy()))
        # Where the displacement leads out of A, it shows a mirror image of its border.
        known = ((in_a >= 0) & (in_a <= torch.tensor(image_size(pair.image_a)) - 1)).all(dim=-1)
    in_b = project(torch.from_numpy(pair.homography), in_a)
    return project(torch.linalg.inv(seen_to_b), in_b) - centres, known


def _at(
    values: Float32[np.ndarray, "height width 2"], points: Float64[np.ndarray, "rows columns 2"]
) -> Float64[np.ndarray, "rows columns 2"]:
    """Interpolate values at points (bilinear)."""
    x, y = np.moveaxis(points.astype(np.float32), -1, 0)
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float64)


def _empty_batch(side: int) -> CropBatch:
    images, one, two = torch.zeros(0, 3, side, side), torch.zeros(0, 1, side, side), torch.zeros(0, 2, side, side)
    return CropBatch(images, images, one, two, torch.zeros(0, side, side, dtype=torch.bool))
