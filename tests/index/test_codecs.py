"""Codecs of local maps: what is promised of a record."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.geometry.matching import mutual_nearest_neighbours
from vpr_dhe.index.codecs import CODECS, UNFITTED, LocalMapCodec, fit_codec, load_codec
from vpr_dhe.index.stored_maps import StoredMaps

CELLS = 36
# Per dimension: the least mean cosine between a descriptor and what is decoded of it.
MIN_COSINE = {
    "float16": dict.fromkeys((16, 128, 384), 0.999_999),
    "int8": dict.fromkeys((16, 128, 384), 0.9995),
    "pca128-int8": {128: 0.9995, 384: 0.98},
    "pca64-int8": {128: 0.97, 384: 0.97},
    "binary": {16: 0.99, 128: 0.96, 384: 0.96},
}
SUPPORTED = [(name, dimension) for name, bounds in MIN_COSINE.items() for dimension in bounds]
every_codec = pytest.mark.parametrize(("name", "dimension"), SUPPORTED)


def maps_like_real_ones(count: int, dimension: int, seed: int = 0) -> Float[Tensor, "maps cells dimension"]:
    """Descriptors that share a mean and differ mostly along a few directions, like those of trained models."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(99))).Q
    spread = 0.93 ** torch.arange(dimension)
    rest = torch.randn(count, CELLS, dimension, generator=generator) * spread @ axes.T
    return normalize(0.7 * axes[:, 0] * spread.norm() + rest, dim=-1)


@cache
def fitted(name: str, dimension: int) -> LocalMapCodec:
    return fit_codec(name, maps_like_real_ones(24, dimension))


def records_of(codec: LocalMapCodec, local_maps: Float[Tensor, "maps cells dimension"]) -> np.ndarray:
    return np.stack([np.frombuffer(codec.encode(local_map), np.uint8) for local_map in local_maps])


def through(codec: LocalMapCodec, local_maps: Float[Tensor, "maps cells dimension"]) -> Tensor:
    return codec.decode(records_of(codec, local_maps))


def test_every_codec_is_in_these_tests():
    assert set(MIN_COSINE) == set(CODECS)


@every_codec
def test_records_have_one_size_and_decode_to_rows_of_unit_norm(name, dimension):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(3, dimension, seed=1)
    assert (codec.name, codec.cells, codec.dimension) == (name, CELLS, dimension)
    assert records_of(codec, unseen).shape == (3, codec.record_bytes)
    decoded = through(codec, unseen)
    assert (decoded.dtype, decoded.shape) == (torch.float32, unseen.shape)
    torch.testing.assert_close(decoded.norm(dim=-1), torch.ones(3, CELLS), rtol=0, atol=1e-5)


@every_codec
def test_what_is_decoded_is_close_to_what_was_encoded(name, dimension):
    unseen = maps_like_real_ones(8, dimension, seed=1)
    cosines = (through(fitted(name, dimension), unseen) * unseen).sum(-1)
    assert cosines.mean() > MIN_COSINE[name][dimension]


@every_codec
def test_products_in_the_space_of_the_components_are_those_of_decoded_maps(name, dimension):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(4, dimension, seed=1)
    query, records = unseen[0], records_of(codec, unseen[1:])
    products = codec.project(query) @ codec.components(records).mT
    torch.testing.assert_close(products, query @ codec.decode(records).mT, rtol=0, atol=1e-5)


@every_codec
def test_stored_maps_are_matched_as_decoded_ones_are(name, dimension):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(6, dimension, seed=1)
    query, stored = unseen[0], StoredMaps(codec, records_of(codec, unseen[1:]))
    found, expected = stored.match(query), mutual_nearest_neighbours(query, stored.decoded)
    assert len(stored) == len(found.index) == 5
    assert (found.index == expected.index).float().mean() > 0.93
    torch.testing.assert_close(found.similarity, expected.similarity, rtol=0, atol=0.02)


@every_codec
def test_some_cells_are_decoded_and_matched_as_among_all(name, dimension):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(4, dimension, seed=1)
    unseen[2, 3] = 0
    query, records, chosen = unseen[0], records_of(codec, unseen[1:]), np.array([1, 3, 4, CELLS - 1])
    torch.testing.assert_close(codec.components(records, chosen), codec.components(records)[:, chosen])
    stored = StoredMaps(codec, records)
    found = stored.match(query[chosen], chosen)
    expected = mutual_nearest_neighbours(query[chosen], stored.decoded[:, chosen])
    assert found.index.shape == (3, 4)
    torch.testing.assert_close(found.similarity, expected.similarity, rtol=0, atol=0.02)


@every_codec
def test_fitting_and_encoding_are_deterministic(name, dimension):
    first, second = (fit_codec(name, maps_like_real_ones(24, dimension)) for _ in range(2))
    assert first.parameters.keys() == second.parameters.keys()
    for key, value in first.parameters.items():
        np.testing.assert_array_equal(value, second.parameters[key])
    unseen = maps_like_real_ones(2, dimension, seed=1)
    np.testing.assert_array_equal(records_of(first, unseen), records_of(second, unseen))


@every_codec
def test_a_codec_loaded_from_its_parameters_is_the_same(name, dimension):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(2, dimension, seed=1)
    assert all(value.dtype == np.float32 for value in codec.parameters.values())
    loaded = load_codec(name, CELLS, dimension, codec.parameters)
    assert loaded.record_bytes == codec.record_bytes
    np.testing.assert_array_equal(records_of(loaded, unseen), records_of(codec, unseen))
    assert torch.equal(through(loaded, unseen), through(codec, unseen))


@every_codec
def test_parameters_may_be_read_only(name, dimension, recwarn):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(2, dimension, seed=1)
    frozen = {key: value.copy() for key, value in codec.parameters.items()}
    for value in frozen.values():
        value.setflags(write=False)
    torch.set_warn_always(True)  # torch warns of each kind once in a process otherwise
    try:
        assert torch.equal(through(load_codec(name, CELLS, dimension, frozen), unseen), through(codec, unseen))
    finally:
        torch.set_warn_always(False)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


@every_codec
def test_cells_that_say_nothing_stay_zero(name, dimension):
    codec, local_map = fitted(name, dimension), maps_like_real_ones(1, dimension, seed=1)
    local_map[0, ::3] = 0
    decoded = through(codec, torch.cat([local_map, torch.zeros_like(local_map)]))
    assert torch.isfinite(decoded).all()
    assert not decoded[1].any()
    np.testing.assert_array_equal(decoded[0].norm(dim=-1) > 0, local_map[0].norm(dim=-1) > 0)


@every_codec
def test_constant_maps_can_be_fitted_encoded_and_decoded(name, dimension):
    constant = normalize(torch.ones(8, CELLS, dimension), dim=-1)
    torch.testing.assert_close(through(fit_codec(name, constant), constant), constant, rtol=0, atol=2e-3)


@every_codec
def test_a_map_decodes_alike_alone_and_among_others(name, dimension):
    codec, unseen = fitted(name, dimension), maps_like_real_ones(4, dimension, seed=1)
    records = records_of(codec, unseen)
    torch.testing.assert_close(codec.decode(records)[2:3], codec.decode(records[2:3]), rtol=0, atol=1e-6)
    assert codec.decode(records[:0]).shape == (0, CELLS, dimension)


@every_codec
def test_descriptors_without_a_mean_are_coded_too(name, dimension):
    rows = torch.randn(16, CELLS, dimension, generator=torch.Generator().manual_seed(3))
    both_signs = normalize(torch.cat([rows, -rows]), dim=-1)
    decoded = through(fit_codec(name, both_signs), both_signs)
    torch.testing.assert_close(decoded.norm(dim=-1), torch.ones(32, CELLS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CODECS)
def test_half_precision_on_input_is_as_good(name):
    codec, unseen = fitted(name, 128), maps_like_real_ones(2, 128, seed=1)
    difference = (through(codec, unseen.half()) - through(codec, unseen)).norm(dim=-1)
    assert difference.mean() < 0.02


@given(
    arrays(np.float32, (CELLS, 128), elements=st.floats(-1, 1, width=32)),
    st.sampled_from(sorted(CODECS)),
)
@settings(max_examples=25)
def test_any_map_gives_a_record_of_the_size_and_rows_of_unit_norm_or_zero(numbers, name):
    # Rows of extractors have unit norm or are zero; `normalize` leaves those of less than 1e-12 in between.
    local_map = normalize(torch.from_numpy(np.where(np.abs(numbers) < 1e-6, 0, numbers)), dim=-1)
    codec = fitted(name, 128)
    record = codec.encode(local_map)
    assert len(record) == codec.record_bytes
    decoded = codec.decode(np.frombuffer(record, np.uint8)[None])[0]
    torch.testing.assert_close(decoded.norm(dim=-1), local_map.norm(dim=-1).round(), rtol=0, atol=1e-4)


@given(arrays(np.uint8, (1, fitted("binary", 128).record_bytes)))
@settings(max_examples=20)
def test_any_bits_decode_to_rows_of_unit_norm_or_zero(record):
    norms = fitted("binary", 128).decode(record).norm(dim=-1)
    assert (((norms - 1).abs() < 1e-5) | (norms == 0)).all()


def test_sizes_are_those_that_are_promised():
    maps = normalize(torch.randn(1, 576, 128, generator=torch.Generator().manual_seed(0)), dim=-1)
    sizes = {name: fit_codec(name, maps).record_bytes for name in CODECS}
    assert sizes == {
        "float16": 147_456,
        "int8": 73_732,
        "pca128-int8": 73_732,
        "pca64-int8": 36_868,
        "binary": 19_008,
    }


def test_a_binary_record_does_not_grow_with_the_dimension():
    assert fitted("binary", 384).record_bytes == fitted("binary", 128).record_bytes
    assert fitted("binary", 16).record_bytes < fitted("binary", 128).record_bytes


@pytest.mark.parametrize("name", UNFITTED)
def test_codecs_that_are_not_fitted_need_no_maps(name):
    codec = fit_codec(name, torch.empty(0, CELLS, 16))
    assert (codec.record_bytes, codec.parameters) == (load_codec(name, CELLS, 16, {}).record_bytes, {})


def test_a_codec_that_needs_more_dimensions_says_which_do_not():
    with pytest.raises(BadInputError, match=r"at least 128 dimensions.* have 64; .*float16, int8, pca64-int8, binary"):
        fitted("pca128-int8", 64)


@pytest.mark.parametrize("maps", [torch.zeros(10, CELLS, 128), maps_like_real_ones(1, 128), torch.empty(0, 4, 128)])
def test_too_few_cells_to_fit_on_are_refused(maps):
    with pytest.raises(BadInputError, match=r"fitted on at least 64 cells .* float16, int8"):
        fit_codec("pca64-int8", maps)


def test_unknown_codecs_are_refused():
    with pytest.raises(BadInputError, match=r"unknown codec 'zip'; available: float16"):
        fitted("zip", 16)
    with pytest.raises(IndexFormatError, match=r"stored as 'zip'"):
        load_codec("zip", CELLS, 16, {})


@pytest.mark.parametrize("damage", ["missing", "shape", "type", "not finite"])
def test_parameters_that_do_not_fit_are_damage(damage):
    parameters = fitted("pca64-int8", 128).parameters
    axes = parameters.pop("axes")
    if damage != "missing":
        changed = {"shape": axes[:, :5], "type": axes.astype(np.float64), "not finite": axes * np.nan}
        parameters["axes"] = changed[damage]
    with pytest.raises(IndexDamagedError, match="parameters of codec 'pca64-int8'"):
        load_codec("pca64-int8", CELLS, 128, parameters)
