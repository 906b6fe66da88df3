"""A transformer encoder in fewer bits against torch's in single precision, and where numbers are extreme."""

import pytest
import torch
from torch import nn

from vpr_dhe.runtime.cpu_features import has_integer_linear_layers
from vpr_dhe.verification.estimators.dhe.one_core import BFloat16Linear, Int8Linear, OneCoreEncoder, attend

CPU = torch.device("cpu")
KINDS = [
    BFloat16Linear,
    pytest.param(
        Int8Linear,
        marks=pytest.mark.skipif(not has_integer_linear_layers(CPU), reason="this processor has no 8-bit products"),
    ),
]


def encoder(width: int = 96, heads: int = 4) -> nn.TransformerEncoder:
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(width, heads, 256, dropout=0.0, activation="gelu", batch_first=True)
    made = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # norms and biases too
    return made


def tokens(cells: int = 50, width: int = 96) -> torch.Tensor:
    return torch.randn(cells, width, generator=torch.Generator().manual_seed(1))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.std())


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_torch_but_for_rounding(kind):
    plain = encoder()
    with torch.no_grad():
        expected = plain(tokens()[None])[0]
    found = OneCoreEncoder(plain, kind)(tokens())
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, expected) < (0.01 if kind is BFloat16Linear else 0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_tokens_stay_as_they_are(kind):
    plain, given = encoder(), tokens()
    before, state = given.clone(), {name: value.clone() for name, value in plain.state_dict().items()}
    OneCoreEncoder(plain, kind)(given)
    assert torch.equal(given, before)
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_linear_layers_agree_with_torch_wherever_rows_lie(kind, shift):
    layer, rows = nn.Linear(96, 70), tokens() + shift
    with torch.no_grad():
        expected = layer(rows)
    found = kind(layer.weight.detach(), layer.bias.detach())(rows)
    assert relative_error(found, expected) < 0.03
    assert kind(layer.weight.detach(), layer.bias.detach())(rows, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-38])
def test_rows_of_one_value(kind, value):
    layer, rows = nn.Linear(16, 8), torch.full((5, 16), value)
    with torch.no_grad():
        expected = layer(rows)
    torch.testing.assert_close(kind(layer.weight.detach(), layer.bias.detach())(rows), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_raises_nothing_and_becomes_none(kind, value):
    rows = tokens()
    rows[7, 3] = value
    assert OneCoreEncoder(encoder(), kind)(rows).isnan().any()


def softmax_of_two(queries, keys, values):
    """In double precision."""
    scores = torch.bmm(queries.double(), keys.mT.double())
    weights = (scores - scores.amax(2, keepdim=True)).exp2()
    return (torch.bmm(weights, values.double()) / weights.sum(2, keepdim=True)).transpose(0, 1).flatten(1)


@pytest.mark.parametrize(("greatest", "most"), [(0.01, 0.005), (8.0, 0.01), (80.0, 0.03)])
def test_attention_agrees_with_softmax_but_for_rounding(greatest, most):
    generator = torch.Generator().manual_seed(2)
    queries, keys, values = (torch.randn(8, 60, 16, generator=generator) for _ in range(3))
    queries = (queries * greatest / torch.bmm(queries, keys.mT).abs().max()).bfloat16()
    keys, values = keys.bfloat16(), values.bfloat16()
    found = attend(queries, keys, values)
    assert found.shape == (60, 128)
    assert 0 < relative_error(found, softmax_of_two(queries, keys, values)) < most


@pytest.mark.parametrize("shift", [40.0, -40.0])
def test_attention_where_powers_of_two_leave_the_range_of_numbers(shift):
    generator = torch.Generator().manual_seed(2)
    queries, keys, values = (torch.randn(2, 60, 16, generator=generator) for _ in range(3))
    # One large number for all keys moves all scores of a row, and its softmax by nothing.
    queries[..., 0], keys[..., 0] = shift, 8.0
    queries, keys, values = queries.bfloat16(), keys.bfloat16(), values.bfloat16()
    # Of scores about 320, bfloat16 tells even numbers apart.
    assert relative_error(attend(queries, keys, values), softmax_of_two(queries, keys, values)) < 1
    assert attend(queries, keys, values).isfinite().all()


def test_weights_are_those_of_when_it_was_made():
    plain, given = encoder(), tokens()
    made = OneCoreEncoder(plain, BFloat16Linear)
    before = made(given)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(3)
    assert torch.equal(made(given), before)
