"""The fine networks of RANSAC-Flow, from the published file to flow and matchability."""

from dataclasses import asdict

import published_networks
import pytest
import torch
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import import_checkpoints
from vpr_dhe.models.network_file import load_network
from vpr_dhe.verification.estimators.ransac_flow.network import (
    OFFSETS_CELLS,
    PUBLISHED,
    FineNetwork,
    FineSettings,
    flow_of_cells,
)

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="module")
def state():
    return published_networks.ransac_flow()


@pytest.fixture(scope="module")
def network(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ransac-flow")
    torch.save(state, folder / "weights.pth", _use_new_zipfile_serialization=False)
    import_checkpoints(None, [folder / "weights.pth"]).save(folder / "network.safetensors")
    file = load_network(folder / "network.safetensors")
    assert (file.method, file.settings) == ("ransac-flow", asdict(PUBLISHED))
    assert file.licence.startswith("MIT")
    assert list(file.origin.files) == ["weights.pth"]
    return file.load_into(FineNetwork(file.settings_as(FineSettings))).eval()


def norm(state, name, maps):
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(maps, *parts)


def blurred(maps, filters):
    return functional.conv2d(functional.pad(maps, (1, 1, 1, 1), mode="reflect"), filters, stride=2, groups=len(filters))


def features_of(state, images):
    """As the authors compute them."""
    maps = norm(state, "bn1", functional.conv2d(images, state["conv1.weight"], padding=1)).relu()
    maps = blurred(functional.max_pool2d(maps, 2, stride=1), state["maxpool.1.filt"])
    for name in (f"layer{layer}.{block}" for layer in (1, 2, 3) for block in (0, 1)):
        shortcut, stride = maps, 1
        if f"{name}.downsample.1.weight" in state:
            shortcut = blurred(maps, state[f"{name}.downsample.0.filt"])
            shortcut = norm(
                state, f"{name}.downsample.2", functional.conv2d(shortcut, state[f"{name}.downsample.1.weight"])
            )
            stride = 2
        maps = functional.conv2d(maps, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        maps = functional.conv2d(norm(state, f"{name}.bn1", maps).relu(), state[f"{name}.conv2.weight"], padding=1)
        maps = (norm(state, f"{name}.bn2", maps) + shortcut).relu()
    return functional.normalize(maps)


def head_of(state, maps):
    for number in (1, 2, 3):
        maps = functional.conv2d(maps, state[f"conv{number}.weight"], padding=1)
        maps = norm(state, f"bn{number}", maps).relu()
    return functional.conv2d(maps, state["conv4.weight"], padding=1)


@torch.no_grad()
def test_features_and_outputs_are_those_of_the_published_formulas(state, network):
    source, target = torch.rand(2, 1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    features = network.extract(target)
    torch.testing.assert_close(features, features_of(state["netFeatCoarse"], target), rtol=1e-4, atol=1e-5)
    fine = network.compare(network.extract(source), features)
    correlation = fine.correlation
    shares = head_of(state["netFlowCoarse"], correlation).softmax(dim=1)
    cells = torch.einsum("po...,oa->pa...", shares, OFFSETS_CELLS)
    torch.testing.assert_close(flow_of_cells(fine.offset_logits), cells, rtol=1e-4, atol=1e-5)
    matchability = head_of(state["netMatch"], correlation).sigmoid()
    torch.testing.assert_close(network.matchability_of_cells(correlation), matchability, rtol=1e-4, atol=1e-5)
    # The final flow is a fraction of the image, added to a grid of [-1, 1] and cut off there.
    size = torch.tensor([WIDTH / 8, HEIGHT / 8]).view(1, 2, 1, 1)
    flow = functional.interpolate(cells / size * 2, scale_factor=8, mode="bilinear", align_corners=False)
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    ends = (flow + torch.stack([x, y])).clamp(-1, 1)
    last = torch.tensor([WIDTH - 1, HEIGHT - 1]).view(1, 2, 1, 1)
    pixels = torch.stack(torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy"))
    torch.testing.assert_close(pixels + fine.flow_px, (ends + 1) / 2 * last, rtol=1e-4, atol=1e-3)


def test_what_is_missing_or_of_another_shape_is_named(state, saved):
    for change, message in (
        ({"netMatch": {}}, r"not the networks of RANSAC-Flow \(netFeatCoarse, netFlowCoarse, netMatch\)"),
        ({"netFlowCoarse": {**state["netFlowCoarse"], "conv5.weight": torch.zeros(1)}}, "has unexpected .*conv5"),
        ({"netMatch": {"conv4.weight": torch.zeros(1, 128, 3, 3)}}, "lacks netMatch.conv1.weight"),
    ):
        with pytest.raises(ModelError, match=message):
            import_checkpoints("ransac-flow", [saved("weights.pth", {**state, **change})])


def test_network_files_are_not_imported_again(network, state, saved, tmp_path):
    path = tmp_path / "network.safetensors"
    import_checkpoints("ransac-flow", [saved("weights.pth", state)]).save(path)
    with pytest.raises(ModelError, match="is already a network file; use it by --weights"):
        import_checkpoints("ransac-flow", [path])


def test_files_without_options_stay_as_they_were():
    """Files of earlier versions say nothing about options."""
    earlier = {"half": 8, "quarter": 8, "eighth": 16, "first": 16, "second": 16, "third": 16}
    settings = FineSettings(**earlier)
    assert settings == FineSettings(
        8,
        8,
        16,
        16,
        16,
        16,
        blurred_residual=True,
        blur_padding="replicate",
        head_bias=True,
        imagenet_input=True,
        aligned_corners=False,
    )
    torch.manual_seed(0)
    network = FineNetwork(settings).eval()
    with torch.no_grad():
        forward, _ = network(torch.full((1, 3, 32, 32), 0.25), torch.linspace(0, 1, 3072).view(1, 3, 32, 32))
    # As computed before there were options.
    assert len(network.state_dict()) == 130
    assert float(forward.flow_px.double().abs().mean()) == pytest.approx(0.024693966895029007, rel=1e-4)
    assert float(forward.matchability.double().mean()) == pytest.approx(0.4988921311451122, rel=1e-4)
