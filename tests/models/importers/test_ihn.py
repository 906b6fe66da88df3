"""The registration networks of IHN, from the published file to the displacements after each iteration.

No outputs of the authors' network of two scales are at hand; it is compared with the formulas of paper and code below.
"""

from dataclasses import asdict

import cv2
import numpy as np
import published_networks
import pytest
import torch
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import import_checkpoints
from vpr_dhe.models.network_file import load_network
from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.networks import LAYOUTS, RegistrationSettings

SIDE, RADIUS = 128, 4


def convolution(state, name, maps):
    weight = state[f"{name}.weight"]
    return functional.conv2d(maps, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def encoded(state, images):
    """Maps at a quarter and at half the side."""
    maps = functional.instance_norm(convolution(state, "fnet1.conv1", 2 * images - 1)).relu()
    found = []
    for layer, projection in (("layer2", "conv3"), ("layer3", "conv2")):
        maps = functional.max_pool2d(maps, 2)
        for name in (f"fnet1.{layer}.0", f"fnet1.{layer}.1"):
            inner = functional.instance_norm(convolution(state, f"{name}.conv1", maps)).relu()
            inner = functional.instance_norm(convolution(state, f"{name}.conv2", inner)).relu()
            maps = (functional.instance_norm(convolution(state, f"{name}.downsample.0", maps)) + inner).relu()
        found.append(convolution(state, f"fnet1.{projection}", maps))
    return found[1], found[0]


def moved(shifts, cells):
    """Where the displaced corners bring the centres of cells."""
    corners = np.float32([[0, 0], [cells - 1, 0], [cells - 1, cells - 1], [0, cells - 1]])
    homography = cv2.getPerspectiveTransform(corners, corners + np.float32(shifts) * cells / SIDE)
    x, y = np.meshgrid(np.arange(cells, dtype=np.float64), np.arange(cells, dtype=np.float64))
    points = np.stack([x, y], axis=-1).reshape(1, -1, 2)
    return torch.from_numpy(cv2.perspectiveTransform(points, homography)[0]).float()


def looked_up(map_a, map_b, places):
    """Windows of the correlation at two levels, of which the offset along x changes slowest."""
    cells = map_a.shape[-1]
    volume = torch.einsum("cij,ckl->ijkl", map_a[0], map_b[0]).relu().reshape(-1, 1, cells, cells)
    steps = torch.arange(-RADIUS, RADIUS + 1.0)
    offsets = torch.stack([steps.repeat_interleave(9), steps.repeat(9)], dim=1)
    values = []
    for level, one in enumerate((volume, functional.avg_pool2d(volume, 2))):
        last = one.shape[-1] - 1
        points = 2 * (places[:, None] / 2**level + offsets) / last - 1
        values.append(functional.grid_sample(one, points[:, :, None], align_corners=True)[:, 0, :, 0])
    return torch.cat(values, dim=1).T.reshape(1, -1, cells, cells)


def correction(state, block, layers, maps):
    for number in (*range(1, layers + 1), 10):
        name = f"{block}.cnn.layer{number}"
        maps = convolution(state, f"{name}.0", maps)
        width = maps.shape[1]
        maps = functional.group_norm(maps, width // 8, state[f"{name}.1.weight"], state[f"{name}.1.bias"]).relu()
        maps = maps if number == 10 else functional.max_pool2d(maps, 2)
    left_right, below = convolution(state, f"{block}.cnn.layer10.3", maps)[0].unbind(1)
    return np.stack([left_right[:, 0], left_right[:, 1], below[:, 1], below[:, 0]])


def iterated(state, block, layers, iterations, map_a, map_b):
    cells = map_a.shape[-1]
    start, shifts, found = moved(np.zeros((4, 2)), cells), np.zeros((4, 2)), []
    for _ in range(iterations):
        places = moved(shifts, cells)
        flow = (places - start).T.reshape(1, 2, cells, cells)
        values = torch.cat([looked_up(map_a, map_b, places), flow], dim=1)
        shifts = shifts + correction(state, block, layers, values)
        found.append(shifts)
    return found


def warped(image, shifts):
    """B along the flow of cells of 4 px, enlarged with aligned corners; zero in [-1, 1] where it is not shown."""
    flow = (moved(shifts, 32) - moved(np.zeros((4, 2)), 32)).T.reshape(1, 2, 32, 32)
    flow = 4 * functional.interpolate(flow, (SIDE, SIDE), mode="bilinear", align_corners=True)[0]
    x, y = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")
    grid = 2 * torch.stack([x + flow[0], y + flow[1]], dim=-1)[None] / (SIDE - 1) - 1
    signed = functional.grid_sample(2 * image - 1, grid, align_corners=True)
    shown = functional.grid_sample(torch.ones_like(image), grid, align_corners=True) >= 0.999
    return (signed * shown + 1) / 2


def textured(seed):
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)


def network_of(saved, tmp_path, state):
    import_checkpoints(None, [saved("IHN.pth", state)]).save(tmp_path / "network.safetensors")
    return load_network(tmp_path / "network.safetensors")


@pytest.mark.parametrize("scales", [1, 2])
@torch.no_grad()
def test_displacements_are_those_of_the_published_formulas(saved, tmp_path, scales):
    state = published_networks.ihn(scales=scales)
    file = network_of(saved, tmp_path, state)
    assert file.method == "iterative"
    assert file.settings_as(RegistrationSettings) == RegistrationSettings(scales=scales, **asdict(LAYOUTS["ihn"]))
    assert file.licence.startswith("Apache-2.0")
    a = textured(1)
    b = a.roll((3, -4), dims=(2, 3))
    found = IterativeEstimator.from_file(file).network(a, b)
    (quarter_a, half_a), (quarter_b, _) = encoded(state, a), encoded(state, b)
    expected = iterated(state, "update_block_4", 4, 6, quarter_a, quarter_b)
    if scales == 2:
        first = expected[-1]
        _, half_b = encoded(state, warped(b, first))
        expected += [first + more for more in iterated(state, "update_block_2", 5, 3, half_a, half_b)]
    assert len(found) == len(expected) == 6 + 3 * (scales - 1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-3, atol=2e-3)
    assert np.abs(expected[-1]).max() > 1


def test_weighted_updates_and_other_files_are_refused(saved):
    state = published_networks.ihn()
    weighted = {key.replace(".cnn.", ".cnn_weight."): value for key, value in state.items()}
    only_fine = {key.replace("block_4", "block_2"): value for key, value in state.items()}
    for content, message in (
        (weighted, "weighs image regions .* give a file of another folder than moveobj_weight"),
        ({"fc.weight": torch.zeros(3)}, "holds fc.weight, not a network of IHN"),
        (only_fine, "lacks update_block_4"),
        ({**state, "fnet1.conv4.weight": torch.zeros(3)}, "has unexpected fnet1.conv4.weight"),
    ):
        with pytest.raises(ModelError, match=message):
            import_checkpoints("ihn", [saved("IHN.pth", content)])
