import numpy as np
import pytest
import torch
from small_aggregators import small_aggregator

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import aggregator_names, build_aggregator
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.records import Grid


def tokens(class_token=None, **further):
    patches = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(0))
    return DenseTokens(patches, Grid(3, 4), class_token, **further)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 4.6])
@pytest.mark.parametrize("name", ["gem", "gem-unit-cells"])
def test_gem_agrees_with_its_formula(name, exponent):
    gem = build_aggregator(name, 7)
    gem.load_state_dict({"p": torch.tensor([exponent])})
    cells = tokens().patches.double().numpy()
    if name == "gem-unit-cells":
        cells = cells / np.linalg.norm(cells, axis=2, keepdims=True)
    expected = np.mean(np.maximum(cells, 1e-6) ** exponent, axis=1) ** (1 / exponent)
    with torch.no_grad():
        np.testing.assert_allclose(gem(tokens()).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["gem", "gem-unit-cells"])
def test_gem_state_is_as_published(name):
    state = build_aggregator(name, 7).state_dict()
    assert list(state) == ["p"]
    assert torch.equal(state["p"], torch.tensor([3.0]))


def test_gem_learns_from_negative_and_empty_cells():
    gem = build_aggregator("gem-unit-cells", 3)
    patches = torch.cat([-torch.ones(1, 2, 3), torch.zeros(1, 2, 3)], dim=1).requires_grad_()
    gem(DenseTokens(patches, Grid(2, 2))).sum().backward()
    assert torch.isfinite(patches.grad).all()
    assert torch.isfinite(gem.p.grad).all()


def test_class_token_is_passed_on():
    class_token = torch.randn(2, 7)
    assert torch.equal(build_aggregator("cls", 7)(tokens(class_token)), class_token)


def test_missing_class_token():
    with pytest.raises(ModelError, match="needs a class token"):
        build_aggregator("cls", 7)(tokens())


def test_mean():
    np.testing.assert_allclose(
        build_aggregator("mean", 7)(tokens()), tokens().patches.numpy().mean(1), rtol=1e-5, atol=1e-7
    )


def test_unknown_aggregator():
    with pytest.raises(ModelError, match=r"no aggregator 'nothing'.*gem, gem-unit-cells, .*cls, mean"):
        build_aggregator("nothing", 7)


@pytest.mark.parametrize(
    ("name", "bands"), [("gem-whitened", [slice(0, 12)]), ("gem-2-bands-whitened", [slice(0, 8), slice(8, 12)])]
)
def test_whitened_gem_agrees_with_its_formula(name, bands):
    """Of three rows of four cells, the upper band of two has the first two."""
    rng = np.random.default_rng(0)
    size = 7 * len(bands)
    projection, offset = rng.normal(size=(7, size)), rng.normal(size=7)
    whitened = build_aggregator(name, 7)
    state = {"pool.p": [2.0], "projection": projection, "offset": offset}
    whitened.load_state_dict({key: torch.tensor(np.asarray(value)).float() for key, value in state.items()})
    cells = np.maximum(tokens().patches.double().numpy(), 1e-6)
    pooled = np.concatenate([np.sqrt(np.mean(cells[:, band] ** 2, axis=1)) for band in bands], axis=1)
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True) @ projection.T - offset
    with torch.no_grad():
        np.testing.assert_allclose(whitened(tokens()).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", aggregator_names())
def test_every_aggregator_gives_one_vector_per_image_and_a_gradient(name):
    torch.manual_seed(0)
    made = tokens(torch.randn(2, 7), aggregation_tokens=torch.randn(2, 3, 7), class_attention=torch.rand(2, 12))
    parts = (made.patches, made.class_token, made.aggregation_tokens)
    for part in parts:
        part.requires_grad_()
    vectors = small_aggregator(name, 7, 12)(made)
    assert vectors.shape[0] == 2
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert any(part.grad is not None and bool(part.grad.abs().sum() > 0) for part in parts)


@pytest.mark.parametrize("name", aggregator_names())
def test_no_descriptor_depends_on_other_images(name):
    torch.manual_seed(0)
    both = tokens(torch.randn(2, 7), aggregation_tokens=torch.randn(2, 3, 7), class_attention=torch.rand(2, 12))
    first = DenseTokens(
        both.patches[:1], both.grid, both.class_token[:1], both.aggregation_tokens[:1], both.class_attention[:1]
    )
    aggregator = small_aggregator(name, 7, 12).eval()
    with torch.no_grad():
        torch.testing.assert_close(aggregator(both)[:1], aggregator(first), rtol=1e-4, atol=1e-6)
