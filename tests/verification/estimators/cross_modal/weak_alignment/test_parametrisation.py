"""Homography parameters: nothing moves at 0, and they mean the same at every resolution."""

import pytest
import torch

from vpr_dhe.geometry.coordinates import corners, homographies_between_originals
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.parametrisation import HomographyParameters

A, B = Size(640, 427), Size(300, 500)


def parameters(values=None, scale=0.1):
    made = HomographyParameters(scale)
    if values is not None:
        made.values.data = torch.tensor(values, dtype=torch.float64)
    return made


SOME = [0.3, -0.2, 0.5, 0.1, 0.4, -0.6, 0.2, -0.3]


def test_zero_is_the_identity_between_images_of_one_size_and_joins_the_middles_of_others():
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(parameters().between_originals(A, A), identity, atol=1e-12)
    moved = project(parameters().between_originals(A, B), torch.tensor([[319.5, 213.0]], dtype=torch.float64))
    assert torch.allclose(moved, torch.tensor([[149.5, 249.5]], dtype=torch.float64))


def test_a_parameter_means_the_same_at_every_resolution():
    some = parameters(SOME)
    a, b = Frame(A, Size(64, 43)), Frame(B, Size(38, 64))
    between_inputs = some.between_inputs(a, b)
    originals = homographies_between_originals(between_inputs[None], a, [b])[0]
    assert torch.allclose(originals, some.between_originals(A, B), atol=1e-9)


def test_the_scale_says_how_far_a_step_goes():
    shift = parameters([0, 0, 1.0, 0, 0, 0, 0, 0], scale=0.05).between_originals(A, A)
    assert float(shift[0, 2]) == pytest.approx(0.05 * 640)
    halved = [value / 2 for value in SOME]
    assert torch.equal(parameters(SOME, 0.1).between_units(), parameters(halved, 0.2).between_units())


def test_its_gradient_is_that_of_finite_differences():
    values = torch.tensor(SOME, dtype=torch.float64, requires_grad=True)

    def moved(values):
        some = parameters()
        del some.values
        some.values = values
        return project(some.between_inputs(Frame(A, Size(64, 43)), Frame(B, Size(38, 64))), corners(Size(64, 43)))

    assert torch.autograd.gradcheck(moved, (values,))


def test_it_knows_how_far_it_has_gone():
    assert parameters().largest_move() == 0
    assert parameters([0, 0, 3.0, 0, 0, 4.0, 0, 0]).largest_move() == pytest.approx(0.5)
    assert parameters([0, 0, 0, 0, 0, 0, 30.0, 0]).largest_move() > 1
    assert not parameters([float("nan")] + [0.0] * 7).largest_move() < 1


def test_of_a_small_deformation_the_translation_stays():
    translation = torch.tensor([[1.0, 0, 40.0], [0, 1, -20.0], [0, 0, 1]], dtype=torch.float64)
    bent = translation.clone()
    bent[0, 0], bent[2, 0] = 1.02, 1e-5
    some = parameters()
    some.start_at(bent, A, A)
    before = some.values.clone()
    some.reduce_to_translation(0.001)
    assert torch.equal(some.values, before)
    some.reduce_to_translation(0.05)
    found = some.between_originals(A, A)
    assert torch.allclose(found[:2, :2], torch.eye(2, dtype=torch.float64))
    assert torch.allclose(found[2], translation[2])
    assert torch.allclose(found[:2, 2], translation[:2, 2], atol=0.02 * 640)


def test_it_starts_where_it_is_told():
    truth = torch.tensor([[0.5, 0.02, 20.0], [-0.03, 1.1, 8.0], [1e-5, -2e-5, 1.0]], dtype=torch.float64)
    some = parameters(SOME)
    some.start_at(truth, A, B)
    assert torch.allclose(some.between_originals(A, B), truth, rtol=1e-9)
