"""The fine network: correlation, offsets and sampling say what they should at known shifts."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from vpr_dhe.verification.estimators.ransac_flow.network import (
    MAX_FLOW_PX,
    RADIUS_CELLS,
    BlurPool,
    FineNetwork,
    FineSettings,
    local_correlation,
    warp,
)

SMALL = FineSettings(8, 8, 16, 16, 16, 16)


def test_correlation_agrees_with_inner_products_one_by_one():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(2, 5, 6, 9, generator=generator) for _ in range(2))
    found = local_correlation(source, target)
    assert found.shape == (2, 49, 6, 9)
    for place, (dy, dx) in enumerate((dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)):
        for row, column in [(0, 0), (2, 4), (5, 8)]:
            there = (row + dy, column + dx)
            inside = 0 <= there[0] < 6 and 0 <= there[1] < 9
            expected = (source[1, :, *there] @ target[1, :, row, column]) if inside else torch.tensor(0.0)
            assert torch.allclose(found[1, place, row, column], expected, atol=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, -1), (-3, 3)])
def test_the_flow_of_a_shifted_map_is_the_shift(dx, dy):
    network = FineNetwork(SMALL)
    network.flow_head = torch.nn.Sequential(Sharpened())
    source = functional.normalize(torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(1)), dim=1)
    target = source.roll((-dy, -dx), dims=(2, 3))
    flow = network.compare(source, target).flow_px[0, :, 40:56, 40:56]
    assert torch.allclose(flow, torch.tensor([8.0 * dx, 8.0 * dy]).view(2, 1, 1), atol=0.1)


class Sharpened(torch.nn.Module):
    def forward(self, correlation):
        return 200 * correlation


def test_warping_by_a_flow_samples_where_the_flow_points():
    rows, columns = torch.meshgrid(torch.arange(10.0), torch.arange(14.0), indexing="ij")
    image = torch.stack([columns, rows])[None]
    flow = torch.zeros(1, 2, 10, 14)
    flow[:, 0], flow[:, 1] = 1.5, -0.25
    found = warp(image, flow)[0, :, 2:8, 2:10]
    expected = torch.stack([columns + 1.5, rows - 0.25])[:, 2:8, 2:10]
    assert torch.allclose(found, expected, atol=1e-4)


def test_blurring_before_a_stride_is_a_binomial_filter():
    image = np.random.default_rng(0).random((16, 20)).astype(np.float32)
    found = BlurPool()(torch.from_numpy(image)[None, None])[0, 0].numpy()
    line = np.array([0.25, 0.5, 0.25])
    expected = cv2.sepFilter2D(image, -1, line, line, borderType=cv2.BORDER_REPLICATE)[::2, ::2]
    assert np.allclose(found, expected, atol=1e-6)


def test_maps_are_an_eighth_and_answers_full_size():
    network = FineNetwork(SMALL).eval()
    images = torch.rand(2, 3, 64, 96)
    assert network.extract(images).shape == (2, 16, 8, 12)
    forward, backward = network(images, images.flip(0))
    for answer in (forward, backward):
        assert answer.flow_px.shape == (2, 2, 64, 96)
        assert answer.matchability.shape == (2, 1, 64, 96)
        assert float(answer.flow_px.abs().max()) <= MAX_FLOW_PX
        assert 0 <= float(answer.matchability.min()) <= float(answer.matchability.max()) <= 1


def test_directions_are_each_others_mirror():
    network = FineNetwork(SMALL).eval()
    a, b = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    assert torch.allclose(network(a, b)[1].flow_px, network(b, a)[0].flow_px, atol=1e-4)


def test_the_published_shape():
    network = FineNetwork()
    assert sum(parameter.numel() for parameter in network.features.parameters()) == pytest.approx(2.78e6, rel=0.02)
    assert network.flow_head[-1].out_channels == (2 * RADIUS_CELLS + 1) ** 2
    assert network.matchability_head[-1].out_channels == 1
