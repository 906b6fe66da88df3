"""Names of choices."""

import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.choices import ExtractorPrecision, Runtime, features_precision, require_choice


def test_an_unknown_choice_is_explained():
    require_choice("bf16", ExtractorPrecision, "precision")
    with pytest.raises(BadInputError, match="precision is 'int8'; expected fp32, bf16"):
        require_choice("int8", ExtractorPrecision, "precision")
    with pytest.raises(BadInputError, match="runtime is 'tensorrt'; expected auto, torch, onnx"):
        require_choice("tensorrt", Runtime, "runtime")


def test_8_bits_are_of_heads_alone():
    assert [features_precision(one) for one in ("fp32", "bf16", "int8")] == ["fp32", "bf16", "fp32"]
