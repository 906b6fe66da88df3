"""A transformer encoder in fewer bits against torch's in single precision, and where numbers are extreme."""

import pytest
import torch
from torch import nn

from vpr_dhe.errors import VerifierError
from vpr_dhe.estimators.dhe import DheHead, HeadPrecision, predictor
from vpr_dhe.estimators.dhe.one_core import BFloat16Linear, Int8Linear, OneCoreEncoder, attend
from vpr_dhe.processor import has_bfloat16_products, has_integer_linear_layers

CPU = torch.device("cpu")
KINDS = [
    pytest.param(
        BFloat16Linear,
        marks=pytest.mark.skipif(not has_bfloat16_products(CPU), reason="this processor multiplies no bfloat16"),
    ),
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


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("shift", [0.0, 40.0])
def test_attention_agrees_with_softmax_even_where_powers_of_two_overflow(scale, shift):
    generator = torch.Generator().manual_seed(2)
    queries, keys, values = (torch.randn(8, 60, 16, generator=generator) for _ in range(3))
    queries, keys, values = (queries * scale + shift).bfloat16(), (keys + shift).bfloat16(), values.bfloat16()
    # In the precision that scores have.
    scores = torch.bmm(queries, keys.mT).float()
    expected = torch.bmm((scores - scores.amax(2, keepdim=True)).exp2().double(), values.double())
    expected /= (scores - scores.amax(2, keepdim=True)).exp2().double().sum(2, keepdim=True)
    found = attend(queries, keys, values)
    assert found.shape == (60, 128)
    torch.testing.assert_close(found.double(), expected.transpose(0, 1).flatten(1), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", [HeadPrecision.bf16, HeadPrecision.int8])
def test_a_cpu_takes_the_precision_that_is_asked_for(precision):
    if not {HeadPrecision.bf16: has_bfloat16_products, HeadPrecision.int8: has_integer_linear_layers}[precision](CPU):
        pytest.skip("this processor has no such products")
    torch.manual_seed(0)
    head = DheHead().eval()
    maps = nn.functional.normalize(torch.randn(2, 576, 8), dim=-1)
    predict = predictor(head, CPU, precision)
    with torch.no_grad():
        exact, found = head(maps[:1], maps[1:]).candidate, predict(maps[:1], maps[1:]).candidate
    other = predictor(head, CPU, HeadPrecision.fp32)(maps[:1], maps[1:]).candidate
    torch.testing.assert_close(other, exact)
    error = float((found - exact).abs().max())
    assert 0 < error < (0.02 if precision is HeadPrecision.bf16 else 0.1)


def test_a_gpu_is_not_asked_for_8_bits():
    with torch.device("meta"):
        head = DheHead()
    with pytest.raises(VerifierError, match="8 bits on a CPU alone, and this is on cuda; choose bf16"):
        predictor(head, torch.device("cuda"), HeadPrecision.int8)
