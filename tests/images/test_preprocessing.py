"""Inputs of networks."""

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.images import opened
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.records import RESIZE_8_BIT, Preprocessing, Size


def test_large_arrays_give_nearly_the_same_input_in_less_memory(monkeypatch):
    smooth = PIL.Image.effect_noise((20, 15), 80).convert("RGB").resize((801, 602), PIL.Image.Resampling.BICUBIC)
    preprocessing = Preprocessing(64, 48, "bilinear", True, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    inputs = []
    for large in (10**9, 100_000):
        monkeypatch.setattr(opened, "LARGE_PIXELS", large)
        inputs.append(to_network_input([np.asarray(smooth)], preprocessing, torch.device("cpu")))
    assert float((inputs[0] - inputs[1]).abs().mean()) < 0.02


def test_network_input_is_resized_as_a_tensor_without_antialias(picture):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing(24, 16, "bilinear", False, mean, std)
    image = np.asarray(picture)
    batch = to_network_input([image], preprocessing, torch.device("cpu"))
    assert batch.shape == (1, 3, 16, 24)
    # Bilinear without antialias at scale 2.5 reads the pixels around (x + 1/2) 2.5 - 1/2, and only those.
    y, x = (5 + 0.5) * 2.5 - 0.5, (10 + 0.5) * 2.5 - 0.5
    top, left = int(y), int(x)
    patch = image[top : top + 2, left : left + 2] / 255.0
    weights_y, weights_x = np.array([1 - (y - top), y - top]), np.array([1 - (x - left), x - left])
    value = np.einsum("ijc,i,j->c", patch, weights_y, weights_x)
    np.testing.assert_allclose(batch[0, :, 5, 10].numpy(), (value - mean) / np.array(std), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_8_bit_images_are_resized_as_by_pillow(interpolation):
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    preprocessing = Preprocessing(64, 48, interpolation, True, (0.0,) * 3, (1.0,) * 3, order=RESIZE_8_BIT)
    batch = to_network_input([image], preprocessing, torch.device("cpu"))
    resampling = getattr(PIL.Image.Resampling, interpolation.upper())
    expected = np.asarray(PIL.Image.fromarray(image).resize((64, 48), resampling))
    assert torch.equal((255 * batch[0].permute(1, 2, 0)).round().byte(), torch.tensor(expected))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_input_sizes_by_the_short_side(width, height):
    mode = Preprocessing(512, 512, "bilinear", True, (0.0,) * 3, (1.0,) * 3, resize_mode="short_side")
    size = mode.input_size_of(Size(width, height))
    if min(width, height) <= 512:
        assert size == (width, height)
    else:
        assert min(size) == 512
        assert abs(size.width * height - size.height * width) <= max(width, height)
