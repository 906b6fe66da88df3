"""Preprocessing of decoded images for networks."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import cv2
import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vpr_dhe.images.decoding import sufficient_size
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.opened import excess
from vpr_dhe.records import Image, Preprocessing
from vpr_dhe.runtime.threads import in_parallel

_PILLOW_RESAMPLING = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "area": PIL.Image.Resampling.BOX,
}


def to_network_input(
    images: Sequence[Image], preprocessing: Preprocessing, device: torch.device
) -> Float[Tensor, "batch 3 height width"]:
    """Preprocess images into one batch: resize all to `preprocessing.size`, scale to [0, 1] and normalise.

    If the preprocessing keeps image sizes, group the images by `by_input_size` first.
    """
    resized = partial(_resized, preprocessing=preprocessing, device=device)
    # Threads help on a CPU only.
    inputs = in_parallel(resized, images) if device.type == "cpu" else [resized(image) for image in images]
    batch = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
    mean, std = (_of_channels(values, device) for values in (preprocessing.mean, preprocessing.std))
    # In place, because allocation takes longer than the arithmetic.
    return batch.sub_(mean).div_(std)


def by_input_size(images: Sequence[Image], preprocessing: Preprocessing) -> dict[Preprocessing, list[int]]:
    """Group the indices of images into batches; the keys are the preprocessing of each batch for `to_network_input`."""
    groups: dict[Preprocessing, list[int]] = {}
    for number, image in enumerate(images):
        size = preprocessing.input_size_of(image_size(image))
        groups.setdefault(replace(preprocessing, width=size.width, height=size.height), []).append(number)
    return groups


@lru_cache(maxsize=16)
def _of_channels(values: tuple[float, float, float], device: torch.device) -> Float[Tensor, "1 3 1 1"]:
    """Tensor on the device, cached because copying it would wait for the GPU."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _reduced(image: Image, preprocessing: Preprocessing) -> Image:
    """Downsample a large image to at least twice the input size, because its pixels take 12 bytes each from here on."""
    size = image_size(image)
    factor = excess(size, sufficient_size(preprocessing.size))
    if factor == 1:
        return image
    return cv2.resize(image, (size.width // factor, size.height // factor), interpolation=cv2.INTER_AREA)


def _resized_8_bit(image: Image, preprocessing: Preprocessing) -> Image:
    resampling = _PILLOW_RESAMPLING[preprocessing.interpolation]
    return np.asarray(PIL.Image.fromarray(image).resize(preprocessing.size, resampling))


def _resized(
    image: Image, preprocessing: Preprocessing, device: torch.device
) -> Float[Tensor, "1 3 input_height input_width"]:
    image = _resized_8_bit(image, preprocessing) if preprocessing.resizes_8_bit else _reduced(image, preprocessing)
    # Pinned memory is copied to a GPU asynchronously.
    pixels = torch.tensor(image, pin_memory=device.type == "cuda").to(device, non_blocking=True)
    tensor = pixels.permute(2, 0, 1)[None].float().div_(255)
    if preprocessing.resizes_8_bit:
        return tensor
    return functional.interpolate(
        tensor,
        (preprocessing.height, preprocessing.width),
        mode=preprocessing.interpolation,
        align_corners=False,
        antialias=preprocessing.antialias,
    )
