"""A DHE head in fewer bits against itself in single precision."""

import pytest
import torch
from torch.nn.functional import normalize

from vpr_dhe.errors import VerifierError
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Preprocessing
from vpr_dhe.runtime.cpu_features import has_bfloat16_products, has_integer_linear_layers
from vpr_dhe.verification.estimators.dhe import DheEstimator, DheHead, predictor
from vpr_dhe.verification.estimators.dhe.one_core import BFloat16Linear, Int8Linear
from vpr_dhe.verification.estimators.dhe.predictors import ParallelHead

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not has_integer_linear_layers(CPU), reason="this processor has no 8-bit products")
# Emulated, these take twenty times as long.
needs_bf16 = pytest.mark.skipif(not has_bfloat16_products(CPU), reason="this processor multiplies no bfloat16")
KINDS = [
    pytest.param((BFloat16Linear, 0.01), marks=needs_bf16),
    pytest.param((Int8Linear, 0.03), marks=needs_int8),
]


@pytest.fixture(scope="module")
def maps():
    return normalize(torch.randn(4, 576, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.fixture(scope="module")
def exact(random_head, maps):
    with torch.no_grad():
        return random_head(maps[:1], maps[1:])


@pytest.mark.parametrize("case", KINDS)
def test_fewer_bits_move_points_by_little(random_head, maps, exact, threads, case):
    kind, most = case
    found = ParallelHead(random_head, kind)(maps[:1], maps[1:])
    for ours, theirs in zip(found, exact, strict=True):
        between_pairs = theirs.std(dim=0).mean()
        assert between_pairs > 1, "the test says nothing if points do not depend on maps"
        assert 0 < (ours - theirs).square().mean().sqrt() < most * theirs.std()


@pytest.mark.parametrize("case", KINDS)
def test_no_candidate_depends_on_those_beside_it(random_head, maps, threads, case):
    predict = ParallelHead(random_head, case[0])
    together = predict(maps[:1], maps[1:]).candidate
    alone = [predict(maps[:1], one).candidate for one in maps[1:].split(1)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-2)


def test_single_precision_is_the_head_itself(random_head, maps, exact):
    found = predictor(random_head, CPU, "fp32")(maps[:1], maps[1:])
    assert torch.equal(found.candidate, exact.candidate)


def test_the_usual_precision_is_that_of_the_authors(random_head, maps, exact):
    assert torch.equal(predictor(random_head, CPU)(maps[:1], maps[1:]).candidate, exact.candidate)
    assert DheEstimator(random_head).precision == "fp32"


def test_8_bits_are_refused_where_they_cannot_be(monkeypatch):
    with torch.device("meta"):
        head = DheHead()
    with pytest.raises(
        VerifierError, match=r"needs a CPU with AVX-512 VNNI .* device cuda has none; use --precision fp32"
    ):
        predictor(head, torch.device("cuda"), "int8")
    monkeypatch.setattr("vpr_dhe.verification.estimators.dhe.predictors.has_integer_linear_layers", lambda _: False)
    with pytest.raises(VerifierError, match=r"device cpu has none; use --precision fp32"):
        predictor(head, CPU, "int8")


@needs_int8
def test_the_verifier_in_8_bits_takes_the_same_head(random_head):
    tensors = {f"head.{name}": value for name, value in random_head.state_dict().items()}
    preprocessing = Preprocessing(384, 384, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    model = ModelFile("m", Architecture("cct_14_7x2_384", "gem", head="dhe"), preprocessing, "", "", tensors)
    estimator = DheEstimator.from_model(model, "int8")
    assert estimator.precision == "int8"
    assert torch.equal(estimator.head.state_dict()["pe"], random_head.pe)
