"""Frames: what resizing does to pixels, checked against what it does to images."""

import cv2
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geometry.coordinates import (
    cell_centres,
    corners,
    homographies_between_inputs,
    homographies_between_originals,
    resizing,
    to_originals,
)
from vpr_dhe.geometry.homography import four_point_homography, project
from vpr_dhe.records import Frame, Grid, Size

sides = st.integers(16, 2000)
sizes = st.builds(Size, sides, sides)


def test_cells_of_the_published_grid_are_centred_half_a_pixel_before_8_plus_16_k():
    centres = cell_centres(Grid(24, 24), Size(384, 384))
    assert centres[0].tolist() == [7.5, 7.5]
    assert centres[1].tolist() == [23.5, 7.5]
    assert centres[24].tolist() == [7.5, 23.5]
    assert centres[-1].tolist() == [375.5, 375.5]


@given(sizes, sizes)
def test_resizing_keeps_the_borders_of_the_image(source, target):
    borders = torch.tensor([[-0.5, -0.5], [source.width - 0.5, source.height - 0.5]], dtype=torch.float64)
    moved = project(resizing(source, target), borders)
    expected = torch.tensor([[-0.5, -0.5], [target.width - 0.5, target.height - 0.5]], dtype=torch.float64)
    torch.testing.assert_close(moved, expected)


def test_resizing_agrees_with_a_resized_image():
    image = np.zeros((64, 96), np.float32)
    image[40, 22] = 1.0
    resized = cv2.resize(image, (288, 128), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.indices(resized.shape)
    centroid = torch.tensor([(columns * resized).sum(), (rows * resized).sum()]) / resized.sum()
    moved = project(resizing(Size(96, 64), Size(288, 128)), torch.tensor([[22.0, 40.0]], dtype=torch.float64))
    torch.testing.assert_close(moved[0].float(), centroid.float(), rtol=0, atol=1e-3)


@given(sizes, sizes, st.lists(st.floats(-30, 30), min_size=8, max_size=8))
def test_frames_round_trip(query_size, candidate_size, moves):
    query, candidate = Frame(query_size, Size(384, 384)), Frame(candidate_size, Size(384, 320))
    source = corners(Size(384, 384))
    between_inputs = four_point_homography(source, source + torch.tensor(moves, dtype=torch.float64).view(4, 2))[None]
    between_originals = homographies_between_originals(between_inputs, query, [candidate])
    back = homographies_between_inputs(between_originals, query, [candidate])
    torch.testing.assert_close(back, between_inputs, rtol=1e-6, atol=1e-6)


def test_original_homography_maps_where_the_input_one_does():
    query, candidate = Frame(Size(640, 480), Size(384, 384)), Frame(Size(200, 300), Size(384, 384))
    between_inputs = torch.tensor([[[1.1, 0.02, 5.0], [0.01, 0.9, -3.0], [1e-4, -2e-4, 1.0]]], dtype=torch.float64)
    between_originals = homographies_between_originals(between_inputs, query, [candidate])
    point = torch.tensor([[100.0, 50.0]], dtype=torch.float64)
    through_inputs = project(
        resizing(Size(384, 384), Size(200, 300)),
        project(between_inputs[0], project(resizing(Size(640, 480), Size(384, 384)), point)),
    )
    torch.testing.assert_close(project(between_originals[0], point), through_inputs)


def test_points_are_carried_over_each_by_its_own_frame():
    frames = [Frame(Size(100, 50), Size(10, 10)), Frame(Size(30, 60), Size(60, 60))]
    points = torch.tensor([[0.0, 0.0], [4.5, 4.5], [0.5, 7.0]], dtype=torch.float64)
    found = to_originals(points, frames, torch.tensor([1, 0, 1]))
    expected = [[-0.25, 0.0], [49.5, 24.5], [0.0, 7.0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_cached_resizing_serves_inference_and_training():
    sizes = Size(17, 23), Size(31, 29)
    with torch.inference_mode():
        resizing(*sizes)
    factor = torch.eye(3, dtype=torch.float64, requires_grad=True)
    (resizing(*sizes) @ factor).sum().backward()
    assert factor.grad is not None
