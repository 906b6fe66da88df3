"""Choice of codecs: what is measured, and which codec is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index import codec_choice
from vpr_dhe.index.checking import check
from vpr_dhe.index.codec_choice import choose_codec, fidelity_of, own_verifier
from vpr_dhe.index.codecs import CODECS, UNFITTED, fit_codec
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.records import Grid, Size
from vpr_dhe.verification.estimators.dhe import HEAD_NAME, DheHead

pytestmark = pytest.mark.usefixtures("usual_measurements")

SIDE, DIMENSION = 8, 128
SPEC = ExtractorSpec("unknown", "0", 4, DIMENSION, Grid(SIDE, SIDE), Size(128, 128), True, 1.5)


def views(count: int, telling: float = 1.0) -> Float[Tensor, "maps cells dimension"]:
    """Views of one plane, moved by at most two cells; descriptors differ by `telling`, and share the rest."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(SIDE + 2, SIDE + 2, DIMENSION, generator=generator)
    loud = torch.randn(DIMENSION, generator=generator)
    corners = [(n % 3, n // 3 % 3) for n in range(count)]
    crops = [plane[row : row + SIDE, column : column + SIDE].flatten(0, 1) for row, column in corners]
    return normalize(telling * torch.stack(crops) + (1 - telling) * loud, dim=-1)


def counts(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, np.int64) for row in rows]


def test_nothing_differs_between_equal_inliers():
    measured = fidelity_of(counts([40, 20, 3], [0, 9, 4]), counts([40, 20, 3], [0, 9, 4]))
    assert (measured.order_agreement, measured.inlier_difference, measured.suffices) == (1, 0, True)


def test_a_pair_that_changes_order_counts_and_one_within_chance_does_not():
    # Pairs beyond chance: 40-20, 40-3 and 20-3; then only 100-40 and 100-38, for 40-38 is less than sqrt(78).
    measured = fidelity_of(counts([40, 20, 3], [40, 38, 100]), counts([19, 20, 3], [38, 40, 100]))
    assert measured.order_agreement == pytest.approx(4 / 5)
    assert measured.inlier_difference == pytest.approx((21 + 2 + 2) / (63 + 178))
    assert not measured.suffices


def test_ties_with_a_codec_keep_the_retrieval_order():
    assert fidelity_of(counts([40, 20]), counts([20, 20])).order_agreement == 1
    assert fidelity_of(counts([20, 40]), counts([20, 20])).order_agreement == 0


def test_order_counts_among_the_first_ten_alone():
    inliers = [200 - 10 * number for number in range(10)] + [20, 1]
    swapped = [*inliers[:10], 1, 20]
    measured = fidelity_of(counts(inliers), counts(swapped))
    assert (measured.order_agreement, measured.inlier_difference) == (1, 38 / sum(inliers))


@pytest.mark.parametrize("rows", [[], [[0, 0, 0]], [[]]])
def test_no_inliers_differ_by_nothing(rows):
    measured = fidelity_of(counts(*rows), counts(*rows))
    assert (measured.order_agreement, measured.inlier_difference) == (1, 0)


inlier_counts = st.lists(st.integers(0, 300), min_size=1, max_size=15)


@given(st.lists(inlier_counts, min_size=1, max_size=3), st.data())
def test_fidelity_stays_in_its_bounds(rows, data):
    coded = [data.draw(st.lists(st.integers(0, 300), min_size=len(row), max_size=len(row))) for row in rows]
    measured = fidelity_of(counts(*rows), counts(*coded))
    assert 0 <= measured.order_agreement <= 1
    assert measured.inlier_difference >= 0
    doubled = fidelity_of(counts(*rows), counts(*([2 * one for one in row] for row in rows)))
    assert doubled.order_agreement == 1


def test_the_smallest_codec_is_kept_where_coarse_codes_change_no_inliers():
    choice = choose_codec(views(24), torch.eye(24), SPEC)
    assert choice.trials is not None
    assert (choice.codec.name, set(choice.trials.fidelity)) == ("binary", set(CODECS))
    assert (choice.trials.verifier, choice.trials.verifications, choice.trials.stored) == ("magsac", 200, None)
    assert choice.trials.inliers > 10 * 24
    assert all(measured.suffices for measured in choice.trials.fidelity.values())


def test_codecs_that_flip_matches_are_refused():
    """Descriptors that differ by less than the steps of coarse codes."""
    choice = choose_codec(views(24, telling=0.005), torch.eye(24), SPEC)
    assert choice.trials is not None
    kept = {name for name, measured in choice.trials.fidelity.items() if measured.suffices}
    assert (choice.codec.name, kept) == ("float16", {"float16"})


@pytest.mark.slow
def test_choosing_is_deterministic():
    arguments = views(20, telling=0.05), torch.eye(20), SPEC
    assert choose_codec(*arguments).trials == choose_codec(*arguments).trials


def test_only_codecs_that_work_with_the_maps_are_tried():
    spec = replace(SPEC, local_dimension=16)
    few = normalize(torch.randn(12, SIDE**2, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    tried = choose_codec(few, torch.eye(12), spec).trials
    assert tried is not None
    assert set(tried.fidelity) == {"float16", "int8", "binary"}


def test_maps_without_any_inliers_keep_float16():
    choice = choose_codec(torch.zeros(12, SIDE**2, DIMENSION), torch.eye(12), SPEC)
    assert choice.trials is not None
    assert (choice.codec.name, choice.trials.inliers, set(choice.trials.fidelity)) == ("float16", 0, set(UNFITTED))


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_map_without_a_first_ten_keeps_float16_unmeasured(count):
    choice = choose_codec(views(count), torch.eye(count), SPEC)
    assert (choice.codec.name, choice.trials) == ("float16", None)


def test_no_finer_codec_is_chosen_for_maps_that_a_coarser_one_stored():
    maps = views(24, telling=0.005)
    stored = fit_codec("binary", maps)
    choice = choose_codec(maps, torch.eye(24), SPEC, stored)
    assert choice.codec is stored
    assert choice.trials is not None
    assert (choice.trials.stored, choice.trials.fidelity) == ("binary", {})


@pytest.mark.parametrize("model", ["lite-vlad", "unknown", "timm:vit_tiny_patch16_224", "gone.safetensors"])
def test_models_without_a_dhe_head_are_measured_by_the_default_verifier(model):
    assert own_verifier(replace(SPEC, model=model)).estimator.name == "magsac"


def test_a_model_with_a_dhe_head_is_measured_by_it(monkeypatch):
    model = open_model("sift-vlad").with_head(HEAD_NAME, DheHead().state_dict())
    monkeypatch.setattr(codec_choice, "open_model", lambda _: model)
    assert own_verifier(replace(SPEC, model="sift-vlad")).estimator.name == "dhe"


def test_what_was_measured_is_stored(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    stored, reopened = index.manifest.codec, PlaceIndex.open(index.folder).manifest.codec
    assert stored.trials is not None
    assert (reopened, set(stored.trials.fidelity)) == (stored, {"float16", "int8", "binary"})
    assert not check(index.folder).codec_is_outdated


def test_a_codec_that_the_user_names_is_not_measured(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="int8")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    assert (index.manifest.codec.name, index.manifest.codec.trials) == ("int8", None)
    assert not check(index.folder).codec_is_outdated
