"""Registration networks against direct formulas, and estimators made of networks whose answers are known."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from vpr_dhe.errors import ModelError, VerifierError
from vpr_dhe.geometry.coordinates import corners, resizing
from vpr_dhe.geometry.homography import mean_corner_error, project
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.cross_modal.iterative import IterativeEstimator
from vpr_dhe.verification.estimators.cross_modal.registration.base import (
    InstanceNorm,
    RegistrationNetwork,
    homographies_of,
    inverse_homographies_of,
)
from vpr_dhe.verification.estimators.cross_modal.registration.iterative import (
    LEVELS,
    RADIUS,
    CorrelationLookup,
    IterativeNetwork,
)
from vpr_dhe.verification.estimators.cross_modal.registration.networks import (
    LAYOUTS,
    NETWORKS,
    RegistrationSettings,
    build_registration,
    narrowed,
)
from vpr_dhe.verification.estimators.cross_modal.registration.transfer import build_transfer
from vpr_dhe.verification.estimators.resources import Resources

SMALL = RegistrationSettings(side_px=32, width=8, iterations=2)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_networks_compute_the_same_without_gradients():
    network, images = build_registration(SMALL).eval(), random(2, 3, 32, 32)
    with torch.inference_mode():
        expected = network(images[:1], images[1:])[-1]
    torch.testing.assert_close(network(images[:1], images[1:])[-1], expected)


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_is_that_of_torch(affine):
    maps = random(2, 5, 6, 7)
    expected = torch.nn.InstanceNorm2d(5, affine=affine)
    norm = InstanceNorm(5, affine=affine)
    if affine:
        torch.nn.init.normal_(expected.weight)
    norm.load_state_dict(expected.state_dict())
    torch.testing.assert_close(norm(maps), expected(maps))


def bilinear(table, x, y):
    """Between the four neighbours, which are nothing outside the table."""
    rows, columns = table.shape
    left, top = int(np.floor(x)), int(np.floor(y))
    total = 0.0
    for row, vertical in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, horizontal in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < rows and 0 <= column < columns:
                total += vertical * horizontal * table[row, column]
    return total


def test_lookup_is_interpolated_relu_correlation_around_each_place():
    map_a, map_b = random(2, 6, 4, 4, seed=1) - 0.5, random(2, 6, 4, 4, seed=2) - 0.5
    places = 5 * random(2, 16, 2, seed=3) - 0.5
    found = CorrelationLookup(map_a, map_b)(places).double().numpy()
    window = 2 * RADIUS + 1
    assert found.shape == (2, LEVELS * window**2, 4, 4)
    for pair, cell, level, row, column in ((0, 5, 0, 4, 4), (1, 0, 0, 3, 6), (1, 14, 1, 4, 4), (0, 9, 1, 3, 5)):
        vector = map_a[pair].flatten(1)[:, cell].double().numpy()
        table = np.maximum(np.einsum("c,chw->hw", vector, map_b[pair].double().numpy()) / 6**0.5, 0)
        if level == 1:
            table = table.reshape(2, 2, 2, 2).mean(axis=(1, 3))
        x, y = ((places[pair, cell].double().numpy() + 0.5) / 2**level) - 0.5
        expected = bilinear(table, x + column - RADIUS, y + row - RADIUS)
        channel = level * window**2 + row * window + column
        assert found[pair, channel, cell // 4, cell % 4] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        (RegistrationSettings(), 1.274),
        (RegistrationSettings(scales=2), 2.219),
        (RegistrationSettings("direct"), 21.298),
        (RegistrationSettings("flow"), 0.990),
    ],
)
def test_numbers_of_parameters(settings, millions):
    count = sum(parameter.numel() for parameter in build_registration(settings).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=1e-3)


@pytest.mark.parametrize(
    ("layout", "scales", "parameters"),
    [("ihn", 1, 1_307_970), ("ihn", 2, 1_715_652), ("alto", 1, 1_290_338), ("sshnet", 1, 760_066)],
)
def test_published_numbers_of_parameters(layout, scales, parameters):
    """That of SSHNet is the authors', those of IHN are the sizes of the published files."""
    settings = RegistrationSettings(scales=scales, **asdict(LAYOUTS[layout]))
    assert sum(parameter.numel() for parameter in build_registration(settings).parameters()) == parameters


def test_the_published_transfer_network_has_the_published_number_of_parameters():
    transfer = build_transfer("swin-shuffle", 16)
    assert sum(parameter.numel() for parameter in transfer.parameters()) == 7_574_363


@pytest.mark.parametrize(("scales", "tensors", "mean_px"), [(1, 36, 0.45698826806619763), (2, 56, 0.9097992032766342)])
@torch.no_grad()
def test_files_without_options_stay_as_they_were(scales, tensors, mean_px):
    """Files of earlier versions say nothing about options; the numbers were computed before there were any."""
    earlier = {"network": "iterative", "side_px": 32, "width": 8, "iterations": 2, "scales": scales}
    settings = NetworkFile("iterative", earlier, "", "", {}).settings_as(RegistrationSettings)
    torch.manual_seed(0)
    network = build_registration(settings).eval()
    image = torch.linspace(0, 1, 3072).view(1, 3, 32, 32)
    assert len(network.state_dict()) == tensors
    assert float(network(image, image.flip(3))[-1].double().abs().mean()) == pytest.approx(mean_px, rel=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scales", [1, 2])
def test_every_trained_weight_of_each_layout_gets_a_gradient(layout, scales):
    options = narrowed(LAYOUTS[layout], 8)
    network = IterativeNetwork(32, 8, iterations=2, scales=scales, options=options)
    estimates = network(random(2, 3, 32, 32), random(2, 3, 32, 32, seed=1))
    assert len(estimates) == 2 if scales == 1 else 2 + (options.fine_iterations or 2)
    sum(estimate.square().sum() for estimate in estimates).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert not parameter.requires_grad or torch.isfinite(parameter.grad).all(), name
    unused = {name.split(".")[1] for name, one in network.named_parameters() if not one.requires_grad}
    assert unused == ({"describe_fine"} if scales == 1 and options.both_projections else set())


@pytest.mark.parametrize("width", [8, 24, 32, 40, 64, 96])
def test_narrower_second_scales_are_divisible_into_groups(width):
    options = narrowed(LAYOUTS["ihn"], width)
    assert options.fine_width == (80 if width == 64 else options.fine_width)
    IterativeNetwork(32, width, scales=2, options=options)


@pytest.mark.parametrize(("name", "millions"), [("swin", 6.261), ("swin-shuffle", 7.574), ("convolutional", 0.489)])
@torch.no_grad()
def test_transfer_networks_repaint_whole_images(name, millions):
    transfer = build_transfer(name, 16)
    assert sum(parameter.numel() for parameter in transfer.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    image = random(1, 3, 48, 48)
    torch.testing.assert_close(transfer(image), image, rtol=0, atol=0.021)  # it has learned nothing yet
    for parameter in transfer.change.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    painted = transfer(image)
    assert painted.shape == (1, 3, 48, 48)
    assert painted.min() >= 0
    assert painted.max() <= 1
    assert (painted - image).abs().mean() > 0.05
    with pytest.raises(
        ModelError, match="unknown transfer network 'magic'; available: swin, swin-shuffle, convolutional"
    ):
        build_transfer("magic", 16)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_network_estimates_finite_displacements(name):
    network = build_registration(RegistrationSettings(name, width=8, iterations=2)).eval()
    estimates = network(random(2, 3, 128, 128), random(2, 3, 128, 128, seed=1))
    assert len(estimates) == (1 if name == "direct" else 2)
    assert all(estimate.shape == (2, 4, 2) and torch.isfinite(estimate).all() for estimate in estimates)


def test_every_weight_of_the_iterative_network_gets_a_gradient_at_both_scales():
    network = IterativeNetwork(32, 8, iterations=2, scales=2)
    estimates = network(random(1, 3, 32, 32), random(1, 3, 32, 32, seed=1))
    assert len(estimates) == 4
    sum(estimate.square().sum() for estimate in estimates).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_where_an_iteration_looks_has_no_gradient():
    """So an estimate depends on the one before it as a sum on its first term, and in no other way."""
    network = IterativeNetwork(32, 8, iterations=2)
    first, second = network(random(1, 3, 32, 32), random(1, 3, 32, 32, seed=1))
    assert torch.equal(torch.autograd.grad(second.sum(), first)[0], torch.ones_like(first))


def test_cells_move_as_the_homography_says():
    network = IterativeNetwork(32, 8)
    cells, flow = network._cells(torch.full((1, 4, 2), 8.0), 4)
    assert flow.shape == (1, 2, 8, 8)
    torch.testing.assert_close(flow, torch.full((1, 2, 8, 8), 2.0))
    torch.testing.assert_close(cells[0, 0], torch.tensor([2.0, 2.0]))


def test_a_flow_of_a_homography_gives_its_corners():
    network = build_registration(RegistrationSettings("flow"))
    displacements = 40 * random(3, 4, 2) - 20
    matrices = homographies_of(displacements, network.size)
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    points = torch.stack([x, y], dim=-1).flatten(0, 1).double()
    flow = (project(matrices, points) - points).mT.unflatten(2, (128, 128)).float()
    torch.testing.assert_close(network._displacements(flow), displacements, atol=0.1, rtol=0)


def test_inverse_homographies_undo():
    displacements = 16 * random(5, 4, 2, seed=2).double() - 8
    product = inverse_homographies_of(displacements, Size(32, 32)) @ homographies_of(displacements, Size(32, 32))
    product = product / product[:, 2:, 2:]
    torch.testing.assert_close(product, torch.eye(3).double().expand(5, 3, 3), atol=1e-9, rtol=0)


class Known(RegistrationNetwork):
    """Gives, for each candidate, the displacements that its first pixels spell."""

    def __init__(self, displacements):
        super().__init__()
        self.size, self.displacements, self.seen = Size(128, 128), displacements, []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, a, b):
        assert a.shape == b.shape
        assert a.shape[1:] == (3, 128, 128)
        self.seen.append(len(b))
        return [self.displacements[(255 * b[:, 0, 0, 0]).round().long()]]


def view(width, height, grey):
    return View(Frame(Size(width, height), Size(width, height)), lambda: np.full((height, width, 3), grey, np.uint8))


def test_homographies_are_between_originals_of_any_size_and_batched():
    displacements = 60 * random(5, 4, 2, seed=4) - 30
    network = Known(displacements)
    candidates = [view(200 + 30 * number, 300 - 20 * number, number) for number in range(5)]
    found = IterativeEstimator(network, batch_size=2).estimate(view(640, 480, 9), candidates)
    assert network.seen == [2, 2, 1]
    assert found.valid.all()
    for number, candidate in enumerate(candidates):
        before = resizing(Size(640, 480), network.size)
        after = resizing(candidate.frame.image_size, network.size)
        truth = homographies_of(displacements[number], network.size)
        in_inputs = after @ found.matrices[number] @ torch.linalg.inv(before)
        assert mean_corner_error(in_inputs, truth, corners(network.size)) < 1e-6
        assert found.matrices[number, 2, 2] == 1


def test_what_is_no_view_of_the_query_fails():
    mirrored = torch.tensor([[127.0, 0], [-127, 0], [-127, 0], [127, 0]])
    collapsed = -corners(Size(128, 128)).float()
    concave = torch.tensor([[100.0, 100], [0, 0], [0, 0], [0, 0]])
    fine = torch.zeros(4, 2)
    estimator = IterativeEstimator(Known(torch.stack([mirrored, collapsed, concave, fine])))
    found = estimator.estimate(view(128, 128, 9), [view(128, 128, grey) for grey in range(4)])
    assert found.valid.tolist() == [False, False, False, True]
    assert torch.equal(found.matrices[:3], torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    assert estimator.estimate(view(128, 128, 9), []).matrices.shape == (0, 3, 3)


def test_is_built_from_its_file_alone():
    torch.manual_seed(0)
    network = build_registration(SMALL)
    file = network_file("iterative", SMALL, network, training_data="textures")
    estimator = build_estimator("iterative", Resources(networks={"iterative": file}))
    assert isinstance(estimator, IterativeEstimator)
    assert estimator.uses_images
    for one, other in zip(network.parameters(), estimator.network.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(VerifierError, match=r"iterative.*--weights FILE, made by `vpr-dhe train iterative`"):
        build_estimator("iterative")
    with pytest.raises(ModelError, match="unknown registration network 'magic'; available: iterative, direct, flow"):
        IterativeEstimator.from_file(NetworkFile("iterative", {**asdict(SMALL), "network": "magic"}, "", "", {}))
    with pytest.raises(ModelError, match="does not fit its network"):
        IterativeEstimator.from_file(NetworkFile("iterative", {**asdict(SMALL), "width": 16}, "", "", file.tensors))


def test_batch_norm_counters_travel_with_a_direct_network(tmp_path):
    settings = RegistrationSettings("direct", side_px=32)
    network = build_registration(settings)
    network(random(2, 3, 32, 32), random(2, 3, 32, 32))
    file = network_file("iterative", settings, network, training_data="textures")
    loaded = IterativeEstimator.from_file(file).network
    counters = [value for name, value in loaded.state_dict().items() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(counter.dtype == torch.int64 and counter == 1 for counter in counters)
